"""Optimizer groups and schedules."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from fmct.experiment.optim import OptimizerConfig, cosine, decay_groups, linear, warmup_cosine
from fmct.models.vit3d import ViT3DConfig


def test_norms_biases_tokens_and_positions_never_decay() -> None:
    backbone = ViT3DConfig(width=24, depth=2, heads=2, patch_voxels=6, registers=2).build(1, 12)
    decaying, others = decay_groups(backbone, 0.05)
    names = {id(p): name for name, p in backbone.named_parameters()}
    decayed = {names[id(p)] for p in decaying["params"]}  # type: ignore[attr-defined]
    kept = {names[id(p)] for p in others["params"]}  # type: ignore[attr-defined]
    assert decaying["weight_decay"] == 0.05
    assert others["weight_decay"] == 0
    assert decayed | kept == set(names.values())
    assert not decayed & kept
    assert {"cls_token", "register_tokens", "positions"} <= kept
    assert all(name.endswith("bias") or "norm" in name or "token" in name or name == "positions" for name in kept)
    assert all("norm" not in name and not name.endswith("bias") for name in decayed)


def test_nested_modules_keep_their_exclusions() -> None:
    backbone = ViT3DConfig(width=24, depth=1, heads=2, patch_voxels=6, registers=1).build(1, 12)
    outer = nn.ModuleDict({"student": nn.ModuleDict({"backbone": backbone})})
    _, others = decay_groups(outer, 0.1)
    assert any(p is backbone.positions for p in others["params"])  # type: ignore[attr-defined]


def test_frozen_parameters_are_left_out() -> None:
    head, body = nn.Linear(3, 2), nn.Linear(3, 3).requires_grad_(False)
    groups = decay_groups(nn.ModuleList([head, body]), 0.1)
    assert sum(len(g["params"]) for g in groups) == 2  # type: ignore[arg-type]


def test_warmup_then_cosine() -> None:
    values = [warmup_cosine(step, 100, 10, 0.01) for step in range(100)]
    assert values[0] == pytest.approx(0.1)
    assert values[9] == pytest.approx(1.0)
    assert values[10] == pytest.approx(1.0)
    assert values[99] == pytest.approx(0.01)
    middle = 10 + (89 / 2)
    assert (values[math.floor(middle)] + values[math.ceil(middle)]) / 2 == pytest.approx(0.505, abs=1e-3)
    assert all(a >= b for a, b in itertools.pairwise(values[10:]))


def test_schedules_reach_their_ends_and_stay() -> None:
    assert cosine(0, 50, 0.994, 1.0) == pytest.approx(0.994)
    assert cosine(49, 50, 0.994, 1.0) == pytest.approx(1.0)
    assert cosine(500, 50, 0.994, 1.0) == pytest.approx(1.0)
    assert linear(0, 10, 0.04, 0.07) == pytest.approx(0.04)
    assert linear(5, 10, 0.04, 0.07) == pytest.approx(0.055)
    assert linear(99, 10, 0.04, 0.07) == pytest.approx(0.07)
    assert linear(0, 0, 0.04, 0.07) == pytest.approx(0.04)


def test_learning_rate_scales_with_the_global_batch() -> None:
    assert OptimizerConfig(lr=1.5e-4, lr_per_batch_of=256).peak_lr(1024) == pytest.approx(6e-4)
    assert OptimizerConfig(lr=1.5e-4).peak_lr(1024) == pytest.approx(1.5e-4)


def test_factors_multiply_the_learning_rate() -> None:
    head, body = nn.Linear(3, 2), nn.Linear(3, 3)
    optimizer, schedule = OptimizerConfig(lr=1.0, warmup_fraction=0).build([(head, 1.0), (body, 0.01)], 8, 10)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(head.weight)] == pytest.approx(1.0)
    assert rates[id(body.weight)] == pytest.approx(0.01)
    for _ in range(9):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to train"):
        OptimizerConfig(lr=1.0).build([(nn.Linear(2, 2).requires_grad_(False), 1.0)], 8, 10)


def test_adamw_takes_a_step() -> None:
    layer = nn.Linear(4, 1)
    before = layer.weight.detach().clone()
    optimizer, _ = OptimizerConfig(lr=0.1).build([(layer, 1.0)], 1, 2)
    layer(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, layer.weight)
