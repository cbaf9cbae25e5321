"""AdamW with the right parameter groups, and schedules indexed by the global step."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from pydantic import Field
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from fmct.console.errors import UsageError
from fmct.experiment.config import Config
from fmct.models.backbones import Backbone


class OptimizerConfig(Config):
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with linear warm-up and cosine decay."""

    lr: float = Field(gt=0, description="peak learning rate, for a batch of `lr_per_batch_of` scans")
    lr_per_batch_of: int | None = Field(
        None, gt=0, description="scale lr by global batch / this (Goyal et al. 2017); null: use lr as it is"
    )
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.05, ge=0, description="on weight matrices only: never on norms, biases and tokens")
    weight_decay_end: float | None = Field(None, ge=0, description="reached by a cosine at the last step")
    warmup_fraction: float = Field(0.05, ge=0, lt=1, description="share of all steps that warm up")
    final_lr_fraction: float = Field(1e-3, ge=0, le=1, description="learning rate at the last step / peak")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="learning rate of a backbone's layer / of the next one (0.65 to 0.75 adapts well)"
    )

    def peak_lr(self, global_batch: int) -> float:
        """Return the peak learning rate for a global batch (scans per optimizer step, over all devices)."""
        return self.lr * global_batch / self.lr_per_batch_of if self.lr_per_batch_of else self.lr

    def build(
        self, modules: Iterable[tuple[nn.Module, float]], global_batch: int, total_steps: int
    ) -> tuple[torch.optim.AdamW, LambdaLR]:
        """Build the optimizer and its schedule, to be stepped once per optimizer step.

        Args:
            modules: pairs of a module and the factor on its learning rate.
            global_batch: scans per optimizer step.
            total_steps: optimizer steps in the whole run.

        Raises:
            UsageError: when `layer_decay` is asked for and a module has no layers.
        """
        lr = self.peak_lr(global_batch)
        groups = [
            group | {"lr": lr * factor * scale}
            for module, factor in modules
            for scale, part in by_layer(module, self.layer_decay).items()
            for group in decay_groups(module, self.weight_decay, part)
        ]
        if not groups:
            raise ValueError("nothing to train: no parameter requires a gradient")
        fused = all(p.is_floating_point() and p.device.type in {"cpu", "cuda"} for g in groups for p in g["params"])
        optimizer = torch.optim.AdamW(groups, betas=self.betas, fused=fused)
        warmup_steps = round(self.warmup_fraction * total_steps)
        return optimizer, LambdaLR(
            optimizer, lambda step: warmup_cosine(step, total_steps, warmup_steps, self.final_lr_fraction)
        )


def by_layer(module: nn.Module, layer_decay: float) -> dict[float, list[tuple[str, nn.Parameter]]]:
    """Sort a module's trainable parameters by the factor that its layer puts on the learning rate.

    The factor is `layer_decay` to the power of the layers that come after (Bao et al. 2022, arXiv 2106.08254, appendix;
    Clark et al. 2020, arXiv 2003.10555): 1 for heads and final norms, the smallest for what embeds patches.

    Args:
        module: itself or parts of it may be backbones with `layers` and `layer_of` (see `fmct.models.backbones`).
        layer_decay: factor from one layer to the one before it; with 1 there is one factor, 1.

    Returns:
        Named parameters by factor, the largest factor first.

    Raises:
        UsageError: when a backbone has no layers.
    """
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if layer_decay == 1:
        return {1.0: trainable}
    backbones: list[tuple[str, Any]] = [
        (f"{name}." if name else "", part) for name, part in module.named_modules() if isinstance(part, Backbone)
    ]
    for _, backbone in backbones:
        if not hasattr(backbone, "layer_of"):
            raise UsageError(
                f"layer_decay {layer_decay:g} needs layers, and the backbone {backbone.config.kind} names none",
                "optimizer.layer_decay",
                f"set it to 1, or give {type(backbone).__name__} `layers` and `layer_of`",
            )
    sorted_by_factor: dict[float, list[tuple[str, nn.Parameter]]] = defaultdict(list)
    for name, parameter in trainable:
        after = sum(
            backbone.layers - backbone.layer_of(name.removeprefix(prefix))
            for prefix, backbone in backbones
            if name.startswith(prefix)
        )
        sorted_by_factor[layer_decay**after].append((name, parameter))
    return dict(sorted(sorted_by_factor.items(), reverse=True))


def decay_groups(
    module: nn.Module, weight_decay: float, parameters: Iterable[tuple[str, nn.Parameter]] | None = None
) -> list[dict[str, Any]]:
    """Split a module's trainable parameters, or the given ones of them, into those that decay and those that don't.

    Weights of two dimensions and more decay, except those that a part of the module names in `no_decay_names()`: tokens
    and positions. Biases, norms, scales and other vectors never do.
    """
    excluded: set[str] = set()
    for prefix, part in module.named_modules():
        names = getattr(part, "no_decay_names", None)
        if callable(names):
            excluded |= {f"{prefix}.{name}" if prefix else name for name in names()}
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in by_layer(module, 1.0)[1.0] if parameters is None else parameters:
        (decaying if parameter.ndim >= 2 and name not in excluded else others).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def warmup_cosine(step: int, total_steps: int, warmup_steps: int, final: float) -> float:
    """Return the factor on the learning rate: a line from 0 to 1, then a cosine to `final` at the last step."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return cosine(step - warmup_steps, total_steps - warmup_steps, 1.0, final)


def cosine(step: int, total_steps: int, start: float, end: float) -> float:
    """Return the value at `step` of a half cosine from `start` (step 0) to `end` (the last step and beyond)."""
    progress = min(1.0, step / max(1, total_steps - 1))
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def linear(step: int, total_steps: int, start: float, end: float) -> float:
    """Return the value at `step` of a line from `start` (step 0) to `end` (from `total_steps` on)."""
    return start + (end - start) * min(1.0, step / max(1, total_steps))
