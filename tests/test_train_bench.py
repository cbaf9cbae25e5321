"""What `fmct bench train` says of a step is what a step takes."""

from __future__ import annotations

import pytest
import torch

from fmct.benchmarks import training
from fmct.benchmarks.published_steps import PlainAttention, clip_each, with_plain_attention
from fmct.benchmarks.training_ways import Objective, Size, ways
from fmct.models.heads import DINOHeadConfig
from fmct.models.vit3d import ViT3DConfig

TINY = Size(
    backbone=ViT3DConfig(width=48, depth=1, heads=4, patch_voxels=12, registers=1),
    head=DINOHeadConfig(layers=2, hidden=16, bottleneck=8, prototypes=32),
    voxels=24,
    local_voxels=12,
)


def test_plain_attention_computes_the_same() -> None:
    torch.manual_seed(0)
    model, x = TINY.backbone.build(1, 24).eval(), torch.rand(2, 1, 24, 24, 24)
    tokens = model(x)
    plain = with_plain_attention(model)
    assert isinstance(model.blocks[0].attention, PlainAttention)
    torch.testing.assert_close(plain(x), tokens)


def test_each_gradient_is_clipped_by_its_own_norm() -> None:
    large, small = torch.nn.Parameter(torch.zeros(4)), torch.nn.Parameter(torch.zeros(4))
    large.grad, small.grad = torch.full((4,), 5.0), torch.full((4,), 0.1)
    clip_each([large, small])
    assert large.grad.norm() == pytest.approx(3.0, rel=1e-5)
    assert torch.equal(small.grad, torch.full((4,), 0.1))


@pytest.mark.parametrize("objective", ["dino", "mae"])
def test_all_ways_are_timed_and_their_arithmetic_is_counted(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "in_fresh_process", lambda work: work())
    outcome = training.measure_training(objective, 1, TINY)
    names = [way.name for way in ways(objective, TINY)]
    assert [timing.name for timing in outcome.timings] == names == list(outcome.tflop)
    assert outcome.timings[0].name.startswith("published")
    assert all(timing.seconds[0] > 0 for timing in outcome.timings)
    published, same_work = (outcome.tflop[name] for name in names[:2])
    assert published == pytest.approx(same_work, rel=0.02), "the same work has the same FLOPs"
    assert outcome.tflop[names[3]] < published
    assert len(outcome.notes()) == len(names)
