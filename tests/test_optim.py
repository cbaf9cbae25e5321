"""Optimizer groups and schedules."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from fmct.console.errors import UsageError
from fmct.experiment.optim import OptimizerConfig, cosine, decay_groups, linear, warmup_cosine
from fmct.models.cnn import ResNetConfig, StagedNetwork
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


def backbone_and_head() -> nn.ModuleDict:
    backbone = ViT3DConfig(width=24, depth=3, heads=2, patch_voxels=6, registers=2, layer_scale=0.1).build(1, 12)
    return nn.ModuleDict({"backbone": backbone, "head": nn.Linear(24, 2)})


def test_layers_learn_slower_the_nearer_they_are_to_the_patches() -> None:
    model = backbone_and_head()
    optimizer, _ = OptimizerConfig(lr=2.0, layer_decay=0.5, warmup_fraction=0).build([(model, 1.0)], 8, 10)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    by_name = {name: rates[id(p)] for name, p in model.named_parameters()}
    expected = {"patch_embedding": 4, "cls_token": 4, "register_tokens": 4, "positions": 4, "norm": 0}
    for name, rate in by_name.items():
        part, *rest = name.removeprefix("backbone.").split(".")
        after = 3 - int(rest[0]) if part == "blocks" else expected.get(part, 0)
        assert rate == pytest.approx(2.0 * 0.5**after), name
    assert len(by_name) == len(rates)
    assert len(optimizer.param_groups) == 2 * (3 + 2)  # a layer's weights that decay, and its others


def test_a_module_without_a_backbone_and_a_factor_go_with_layer_decay() -> None:
    model = backbone_and_head()
    parts = [(model["head"], 1.0), (model["backbone"], 0.01)]
    optimizer, _ = OptimizerConfig(lr=1.0, layer_decay=0.5, warmup_fraction=0).build(parts, 8, 10)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(model["head"].weight)] == pytest.approx(1.0)
    assert rates[id(model["backbone"].norm.weight)] == pytest.approx(0.01)
    assert rates[id(model["backbone"].positions)] == pytest.approx(0.01 * 0.5**4)


def test_without_layer_decay_groups_are_what_they_were() -> None:
    """Checkpoints number parameters by group, so older ones go on only where groups stay."""
    model = backbone_and_head()
    optimizer, _ = OptimizerConfig(lr=1.0, weight_decay=0.3).build([(model, 1.0)], 8, 10)
    named = list(model.named_parameters())
    excluded = {"backbone.cls_token", "backbone.register_tokens", "backbone.positions"}
    decaying = [p for n, p in named if p.ndim >= 2 and n not in excluded]
    others = [p for n, p in named if p.ndim < 2 or n in excluded]
    for group, parameters, decay in zip(optimizer.param_groups, (decaying, others), (0.3, 0.0), strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in parameters]
        assert group["weight_decay"] == decay


def test_layer_decay_of_a_backbone_without_layers_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(StagedNetwork, "layer_of")
    with pytest.raises(UsageError, match=r"the backbone resnet names none[\s\S]*optimizer.layer_decay"):
        OptimizerConfig(lr=1.0, layer_decay=0.5).build([(ResNetConfig(depth=10, widen=0.125).build(1, 16), 1.0)], 8, 10)


@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
def test_every_step_has_the_learning_rate_of_the_formula(layer_decay: float) -> None:
    steps, batch, warmup = 40, 512, 4
    config = OptimizerConfig(
        lr=1e-3, lr_per_batch_of=256, warmup_fraction=0.1, final_lr_fraction=0.02, layer_decay=layer_decay
    )
    model = backbone_and_head()
    optimizer, schedule = config.build([(model, 0.5)], batch, steps)
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    t = np.arange(steps)
    rising = (t + 1) / warmup
    falling = 0.02 + 0.98 * (1 + np.cos(np.pi * (t - warmup) / (steps - warmup - 1))) / 2
    factor = np.where(t < warmup, rising, falling)
    layers = np.repeat(layer_decay ** np.arange(5.0), 2) if layer_decay < 1 else np.ones(2)
    np.testing.assert_allclose(seen, 1e-3 * batch / 256 * 0.5 * factor[:, None] * layers, rtol=1e-6)
