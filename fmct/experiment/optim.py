"""AdamW with the right parameter groups, and schedules indexed by the global step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from pydantic import Field
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from fmct.experiment.config import Config


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
        """
        lr = self.peak_lr(global_batch)
        groups = [
            group | {"lr": lr * factor}
            for module, factor in modules
            for group in decay_groups(module, self.weight_decay)
        ]
        if not groups:
            raise ValueError("nothing to train: no parameter requires a gradient")
        fused = all(p.is_floating_point() and p.device.type in {"cpu", "cuda"} for g in groups for p in g["params"])
        optimizer = torch.optim.AdamW(groups, betas=self.betas, fused=fused)
        warmup_steps = round(self.warmup_fraction * total_steps)
        return optimizer, LambdaLR(
            optimizer, lambda step: warmup_cosine(step, total_steps, warmup_steps, self.final_lr_fraction)
        )


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split a module's trainable parameters into those that decay and those that don't.

    Weights of two dimensions and more decay, except those that the module itself names in `no_decay_names()`: tokens
    and positions. Biases, norms and other vectors never do.
    """
    excluded: set[str] = set()
    for prefix, part in module.named_modules():
        names = getattr(part, "no_decay_names", None)
        if callable(names):
            excluded |= {f"{prefix}.{name}" if prefix else name for name in names()}
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    decaying = [p for name, p in trainable if p.ndim >= 2 and name not in excluded]
    others = [p for name, p in trainable if p.ndim < 2 or name in excluded]
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
