"""What a training step of the published system computes, as the baseline of `fmct bench train`.

Written anew from its description (arXiv 2502.02779), and plainly: float32, every crop at the size of a global one,
attention as two matrix products and a softmax, a large decoder, clipping, averaging and updating one parameter after
the other. B scans, K prototypes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmct.losses.reconstruction import patchify
from fmct.models.blocks import Attention, plain_attention
from fmct.models.decoder import DecoderConfig
from fmct.models.heads import DINOHeadConfig
from fmct.models.masking import draw_noise, random_keep
from fmct.models.vit3d import ViT3DConfig

CROPS, GLOBAL_CROPS = 4, 2
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE, CENTER_MOMENTUM, EMA_MOMENTUM = 0.1, 0.04, 0.9, 0.994
GREATEST_NORM = 3.0
DECODER = DecoderConfig(depth=8, width=768, heads=16)


class PlainAttention(Attention):
    """Attention that writes its weights to memory."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attend in two products and a softmax."""
        return plain_attention(query, key, value, mask)


def with_plain_attention(module: nn.Module) -> nn.Module:
    """Replace all attention within a module by the plain one; returns the module."""
    for part in module.modules():
        if isinstance(part, Attention):
            part.__class__ = PlainAttention
    return module


def published_dino_step(
    backbone: ViT3DConfig, head: DINOHeadConfig, channels: int, voxels: int, device: torch.device
) -> Callable[[Tensor], None]:
    """Make student, teacher and optimizer; return the step, which takes (4 · B, C, voxels, voxels, voxels) crops."""
    encoder = backbone.build(channels, voxels)
    student = with_plain_attention(nn.ModuleDict({"backbone": encoder, "head": head.build(encoder.width)})).to(device)
    teacher = copy.deepcopy(student).requires_grad_(False).eval()
    parameters = list(student.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.04, foreach=False)
    center = torch.zeros(1, head.prototypes, device=device)

    def project(model: nn.Module, crops: Tensor) -> Tensor:
        assert isinstance(model, nn.ModuleDict)
        logits: Tensor = model["head"](model["backbone"](crops)[:, 0])
        return logits

    def step(crops: Tensor) -> None:
        nonlocal center
        with torch.no_grad():
            logits = project(teacher, crops[: len(crops) * GLOBAL_CROPS // CROPS])
        targets = ((logits - center) / TEACHER_TEMPERATURE).softmax(-1).chunk(GLOBAL_CROPS)
        said = (project(student, crops) / STUDENT_TEMPERATURE).chunk(CROPS)
        terms = [
            (-target * F.log_softmax(view, -1)).sum(-1).mean()
            for t, target in enumerate(targets)
            for v, view in enumerate(said)
            if v != t
        ]
        optimizer.zero_grad()
        torch.stack(terms).mean().backward()  # type: ignore[no-untyped-call]
        center = center * CENTER_MOMENTUM + logits.mean(0, keepdim=True) * (1 - CENTER_MOMENTUM)
        clip_each(parameters)
        optimizer.step()
        with torch.no_grad():
            for mine, theirs in zip(teacher.parameters(), parameters, strict=True):
                mine.mul_(EMA_MOMENTUM).add_((1 - EMA_MOMENTUM) * theirs)

    return step


def clip_each(parameters: list[nn.Parameter]) -> None:
    """Clip each parameter's gradient by its own norm, looking at every norm on the host."""
    for parameter in parameters:
        if parameter.grad is not None:
            factor = GREATEST_NORM / (float(parameter.grad.norm()) + 1e-6)
            if factor < 1:
                parameter.grad.mul_(factor)


def published_mae_step(
    backbone: ViT3DConfig, channels: int, voxels: int, device: torch.device, mask_ratio: float = 0.75
) -> Callable[[Tensor], None]:
    """Make encoder, decoder and optimizer; return the step, which takes (B, C, voxels, voxels, voxels) views."""
    encoder = backbone.build(channels, voxels)
    decoder = DECODER.build(encoder, channels)
    model = with_plain_attention(nn.ModuleList([encoder, decoder])).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, foreach=False)
    generator = torch.Generator().manual_seed(0)

    def step(views: Tensor) -> None:
        target = patchify(views, encoder.patch_zyx)
        masking = random_keep(draw_noise(len(views), target.shape[1], generator, device), mask_ratio)
        prediction = decoder(encoder(views, masking.keep_BK), masking.restore_BN)
        error = (prediction - target).square().mean(-1)
        optimizer.zero_grad()
        ((error * masking.mask_BN).sum() / masking.mask_BN.sum()).backward()
        optimizer.step()

    return step
