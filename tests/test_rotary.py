"""Rotary positions: what a token makes of another depends on how far apart they are, in patches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fmct.models.blocks import Attention
from fmct.models.masking import draw_noise, random_keep
from fmct.models.rotary import TEMPERATURE, rotary_angles, rotate, rotation_of
from fmct.models.vit3d import ViT3D, ViT3DConfig

GRID, HEAD_WIDTH = (4, 3, 5), 14  # 2 frequencies an axis, 6 pairs turned, one left as it is


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rope(**changes: object) -> ViT3D:
    torch.manual_seed(0)
    sizes = {"width": 24, "depth": 2, "heads": 2, "patch_voxels": (2, 4, 3), "positions": "rope"}
    return ViT3DConfig.model_validate(sizes | changes).build(2, (8, 8, 9)).eval()


def test_angles_are_frequencies_times_places() -> None:
    angles = rotary_angles(HEAD_WIDTH, GRID).reshape(*GRID, 7)
    for axis, n in enumerate(GRID):
        own = angles.movedim(axis, 0)[:, 0, 0, 2 * axis : 2 * axis + 2]
        torch.testing.assert_close(own, torch.tensor([[i * TEMPERATURE**-e for e in (0, 0.5)] for i in range(n)]))
    assert not angles[..., 6].any()


def test_rotation_turns_pairs_and_keeps_lengths() -> None:
    x = random(1, 1, 1, 4).double()
    angles = torch.tensor([0.3, 1.1], dtype=torch.float64)
    turned = rotate(x, rotation_of(angles[None, None], 0))[0, 0, 0]
    first = complex(*x[0, 0, 0, [0, 2]]) * complex(math.cos(0.3), math.sin(0.3))
    second = complex(*x[0, 0, 0, [1, 3]]) * complex(math.cos(1.1), math.sin(1.1))
    assert turned.tolist() == pytest.approx([first.real, second.real, first.imag, second.imag])


def test_scores_depend_on_the_distance_alone() -> None:
    query, key = random(HEAD_WIDTH), random(HEAD_WIDTH, seed=1)
    rotation = rotation_of(rotary_angles(HEAD_WIDTH, GRID)[None], 0)
    patches = math.prod(GRID)
    queries, keys = (rotate(v.expand(1, 1, patches, -1), rotation)[0, 0] for v in (query, key))
    scores = (queries @ keys.T).reshape(*GRID, *GRID)
    torch.testing.assert_close(scores[1:, 1:, 1:, 1:, 1:, 1:], scores[:-1, :-1, :-1, :-1, :-1, :-1])
    assert scores.std() > 0.1


def test_a_view_of_another_size_turns_the_same_distance_alike() -> None:
    small, large = (rotary_angles(HEAD_WIDTH, grid).reshape(*grid, -1) for grid in ((2, 2, 2), (5, 4, 3)))
    torch.testing.assert_close(small, large[:2, :2, :2])


def test_tokens_before_the_patches_are_not_turned() -> None:
    x = random(2, 1, 3 + math.prod(GRID), HEAD_WIDTH)
    turned = rotate(x, rotation_of(rotary_angles(HEAD_WIDTH, GRID)[None], 3))
    assert torch.equal(turned[:, :, :4], x[:, :, :4])  # nor is the first patch, at the origin
    assert (turned[:, :, 4:] != x[:, :, 4:]).any(-1).all()


def test_attention_turns_queries_and_keys_but_not_values() -> None:
    torch.manual_seed(0)
    attention, x = Attention(12, 1), random(1, 4, 12)
    rotation = rotation_of(rotary_angles(12, (1, 1, 4))[None], 0)
    query, key, value = attention.qkv(x)[0].split(12, -1)
    turned = [rotate(t[None, None], rotation)[0, 0] for t in (query, key)]
    expected = attention.proj((turned[0] @ turned[1].T / math.sqrt(12)).softmax(-1) @ value)
    torch.testing.assert_close(attention(x, rotation=rotation)[0], expected)


def test_kept_patches_keep_their_places() -> None:
    model, x = rope(), random(3, 2, 8, 8, 9).abs()
    order = torch.stack([torch.randperm(24, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    rows = torch.arange(3)[:, None]
    tokens, permuted = model(x), model(x, order)
    torch.testing.assert_close(permuted[:, :5], tokens[:, :5], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(permuted[:, 5:], tokens[:, 5:][rows, order], atol=1e-5, rtol=1e-5)
    keep = random_keep(draw_noise(3, 24, torch.Generator().manual_seed(3)), 0.5).keep_BK
    alone = [model(x[i : i + 1], keep[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(model(x, keep), torch.cat(alone), atol=1e-5, rtol=1e-5)
    everything = torch.nn.functional.one_hot(keep, 24).sum(1) == 0  # the others are there, but nobody sees them
    fill = torch.cat([keep, everything.nonzero()[:, 1].reshape(3, -1)], 1)
    absent = torch.arange(24).expand(3, -1) >= keep.shape[1]
    torch.testing.assert_close(model(x, fill, absent_BK=absent)[:, : 5 + keep.shape[1]], model(x, keep))


def test_patches_are_told_apart_by_place_in_every_size_of_view() -> None:
    model = rope()
    assert model.positions is None
    assert "positions" not in dict(model.named_parameters())
    for shape in ((8, 8, 9), (4, 4, 18)):
        x = torch.full((1, 2, *shape), 0.5)
        x[..., :2, :4, :3] = 0  # alike everywhere but in the first patch: with one value turning would show nowhere
        tokens = model(x)[0, 6:]
        assert tokens.std(0).max() > 1e-4


def test_blocks_see_shifted_patches_as_they_saw_them() -> None:
    """CLS and registers stand still, so this holds among patches."""
    blocks, x, angles = rope().blocks, random(1, 6, 24), rotary_angles(12, (4, 2, 3)).reshape(4, 2, 3, -1)
    for block in blocks:
        torch.nn.init.normal_(block.attention.qkv.weight, std=0.3)
    here, there = angles[:3, :1, :2].reshape(1, 6, -1), angles[1:, 1:, 1:].reshape(1, 6, -1)
    one, other = (blocks[1](blocks[0](x, None, r), None, r) for r in (rotation_of(here, 0), rotation_of(there, 0)))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert (one - blocks[1](blocks[0](x))).abs().max() > 1e-2


def test_gradients_with_checkpointing_are_the_same_and_reach_everything() -> None:
    gradients = []
    for checkpointed in (False, True):
        model = rope(checkpoint_activations=checkpointed, layer_scale=0.1, drop_path=0.5).train()
        torch.manual_seed(7)
        model(random(8, 2, 8, 8, 9)).square().mul(torch.arange(24.0)).mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)
    assert all(g is not None and g.any() for g in gradients[0])


def test_bfloat16_autocast_stays_near() -> None:
    model, x = rope(), random(2, 2, 8, 8, 9).abs()
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x)
    assert (rough.float() - model(x)).abs().max() < 0.1
