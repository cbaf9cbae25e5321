"""Attention maps, rollout and relevance, against NumPy and against models whose attention is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fmct
from fmct.console.errors import UsageError
from fmct.data.presets import IsotropicSettings
from fmct.data.volumes import Volume
from fmct.evaluation.attention import cls_heads, read_weights, relevance, rollout
from fmct.evaluation.explanations import Explainer
from fmct.evaluation.token_colors import TokenColors
from fmct.models.attention_maps import AttentionMaps, attention_map
from fmct.models.heads import AttentiveHeadConfig, LinearHeadConfig
from fmct.models.packaged import PackageConfig, PackagedModel
from fmct.models.vit3d import ViT3DConfig
from fmct.views.network_input import InputConfig

SIDE, PATCH, REGISTERS, DEPTH, HEADS = 24, 8, 2, 3, 2
PREFIX, PATCHES = 1 + REGISTERS, (SIDE // PATCH) ** 3


def vit(**changes: object) -> PackagedModel:
    torch.manual_seed(0)
    backbone = {"width": 24, "depth": DEPTH, "heads": HEADS, "patch_voxels": PATCH, "registers": REGISTERS} | changes
    head = backbone.pop("head", LinearHeadConfig())
    config = PackageConfig(
        name="tiny",
        task="classifier",
        fmct_version=fmct.__version__,
        steps=1,
        backbone=ViT3DConfig(**backbone),
        input=InputConfig(voxels=SIDE),
        preprocessing=IsotropicSettings(spacing_mm=9.0, shape_voxels=SIDE),
        head=head,
        labels=("ICH", "SDH"),
    )
    model = PackagedModel(config)
    for parameter in model.parameters():  # as initialized, attention is all but uniform
        parameter.mul_(4)
    return model


def head_volume() -> Volume:
    z, y, x = np.mgrid[:SIDE, :SIDE, :SIDE] - (SIDE - 1) / 2
    hu = np.random.default_rng(0).normal(40, 20, (SIDE, SIDE, SIDE))
    hu[x**2 + y**2 + z**2 > 10**2] = -1024
    return Volume(hu.astype(np.int16), np.diag([9.0, 9.0, 9.0, 1.0]))


@pytest.mark.parametrize("positions", ["sincos", "rope"])
def test_capturing_changes_nothing_and_rows_sum_to_one(positions: str) -> None:
    model, x = vit(positions=positions), torch.rand(2, 3, SIDE, SIDE, SIDE)
    plain = model.tokens(x)
    with AttentionMaps() as maps:
        tokens = model.tokens(x)
    torch.testing.assert_close(tokens, plain, atol=1e-5, rtol=1e-5)
    assert [m.shape for m in maps.kept] == [(2, HEADS, PREFIX + PATCHES, PREFIX + PATCHES)] * DEPTH
    for kept in maps.kept:
        torch.testing.assert_close(kept.sum(-1), torch.ones(kept.shape[:-1]), atol=1e-5, rtol=0)
        assert kept.std() > 1e-3
    model.tokens(x)
    assert len(maps.kept) == DEPTH  # what runs afterwards isn't kept


def test_only_wanted_attentions_are_kept_and_a_mask_hides_what_it_should() -> None:
    model, x = vit(), torch.rand(1, 3, SIDE, SIDE, SIDE)
    with AttentionMaps() as every:
        model.tokens(x)
    absent = torch.zeros(1, PATCHES, dtype=torch.bool)
    absent[0, 5:] = True
    with AttentionMaps({DEPTH - 1}, reduce=lambda m: m.mean(1)) as last:
        model.tokens(x)
    assert len(last.kept) == 1
    torch.testing.assert_close(last.kept[0], every.kept[-1].mean(1))
    with AttentionMaps() as masked:
        plain = model.backbone(x, absent_BK=absent)
    assert (masked.kept[0][..., PREFIX + 5 :] == 0).all()
    torch.testing.assert_close(plain, model.backbone(x, absent_BK=absent), atol=1e-5, rtol=1e-5)


def test_a_map_is_the_softmax_of_scaled_products() -> None:
    q, k = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 5, 8)
    scores = np.einsum("bhqd,bhnd->bhqn", q, k) * 0.3
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(attention_map(q, k, scale=0.3), expected, atol=1e-6)


def test_rollout_of_uniform_attention_is_uniform() -> None:
    uniform = torch.full((1, 10, 10), 0.1)
    for depth in (1, 4):
        rolled = rollout([uniform] * depth, prefix_tokens=2)
        torch.testing.assert_close(rolled, torch.full((1, 8), (1 - 0.5**depth) / 10))


def test_rollout_is_the_product_of_all_blocks() -> None:
    maps = torch.rand(3, 2, 6, 6).softmax(-1)
    expected = np.eye(6)[None].repeat(2, 0)
    for one in maps.numpy():
        expected = (one + np.eye(6)) / 2 @ expected
    np.testing.assert_allclose(rollout(maps, 1), expected[:, 0, 1:], atol=1e-6)
    with pytest.raises(ValueError, match="at least one block"):
        rollout([], 1)


def test_heads_are_what_cls_attends_to() -> None:
    map_BHTT = torch.rand(1, 2, 5, 5)
    assert torch.equal(cls_heads(map_BHTT, 2), map_BHTT[:, :, 0, 2:])


def test_relevance_of_one_layer_is_what_the_gradient_says() -> None:
    """y = w · (A v) of the first token, so ∂y/∂A[0, n] = w · v_n per head, and nothing else counts."""
    generator = np.random.default_rng(0)
    q, k, v = (torch.from_numpy(generator.normal(size=(1, 2, 6, 4))).requires_grad_() for _ in range(3))
    w = torch.from_numpy(generator.normal(size=(2, 4)))
    with AttentionMaps() as maps:
        y = (F.scaled_dot_product_attention(q, k, v)[0, :, 0] * w).sum()
    found = relevance(maps.kept, torch.autograd.grad(y, maps.kept), 1)[0]
    a = np.exp((q @ k.mT).detach().numpy()[0, :, 0] / 2)
    a /= a.sum(-1, keepdims=True)
    rises = np.maximum(np.einsum("hd,hnd->hn", w, v.detach()[0]) * a, 0).mean(0)
    np.testing.assert_allclose(found, rises[1:], atol=1e-6)


def test_relevance_adds_up_over_layers_and_ends_in_a_pooling_query() -> None:
    rng = np.random.default_rng(0)
    a, ga = (torch.from_numpy(rng.normal(size=(2, 1, 3, 5, 5)).astype(np.float32)) for _ in range(2))
    p, gp = (torch.from_numpy(rng.normal(size=(1, 3, 1, 5)).astype(np.float32)) for _ in range(2))
    expected = np.eye(5)
    for layer in range(2):
        expected = expected + np.maximum((ga * a)[layer, 0].numpy(), 0).mean(0) @ expected
    np.testing.assert_allclose(relevance(list(a), list(ga), 2)[0], expected[0, 2:], rtol=1e-5)
    pooled = np.maximum((gp * p)[0].numpy(), 0).mean(0) @ expected
    np.testing.assert_allclose(relevance([*a, p], [*ga, gp], 2)[0], pooled[0, 2:], rtol=1e-5)


def test_relevance_is_read_where_the_head_reads() -> None:
    """Of CLS alone; of a mean of patches as of attention that is 1 / n everywhere, whose values are the tokens."""
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.normal(size=(1, 6, 4))).requires_grad_()
    w = torch.from_numpy(rng.normal(size=4))
    (of_cls,) = torch.autograd.grad(tokens[:, 0] @ w, tokens)
    assert read_weights(tokens, of_cls).tolist() == [[1, 0, 0, 0, 0, 0]]
    (of_mean,) = torch.autograd.grad(tokens[:, 2:].mean(1) @ w, tokens)
    patches = tokens.detach().numpy()[0, 2:]
    expected = np.maximum((patches - patches.mean(0)) @ w.numpy() / 4, 0)
    found = read_weights(tokens, of_mean)
    np.testing.assert_allclose(found[0], [0, 0, *expected], atol=1e-6)
    a = torch.rand(1, 1, 6, 6)
    ga = torch.randn(1, 1, 6, 6)
    rows = np.eye(6) + np.maximum((ga * a).numpy(), 0)[0, 0]
    np.testing.assert_allclose(relevance([a], [ga], 2, found)[0], (found[0].numpy() @ rows)[2:], rtol=1e-5)


HEADS_OF_LABELS = [
    LinearHeadConfig(),
    AttentiveHeadConfig(heads=2),
    LinearHeadConfig(pooling="mean+std+mirror"),
    AttentiveHeadConfig(heads=2, mirror=True),
]


@pytest.mark.parametrize("head", HEADS_OF_LABELS, ids=["cls", "attentive", "mirror", "attentive-mirror"])
def test_relevance_of_a_model_is_of_its_label(head: object) -> None:
    model, volume = vit(head=head), head_volume()
    maps = Explainer(model, ["relevance"], ["ICH", "SDH"]).maps(volume)
    assert [one.name for one in maps] == ["relevance-ICH", "relevance-SDH"]
    assert maps[0].values.shape == (3, 3, 3)
    assert (maps[0].values >= 0).all()
    assert maps[0].values.max() > 0
    assert not np.allclose(maps[0].values, maps[1].values)
    only = Explainer(model, ["relevance"], ["SDH"]).maps(volume)
    np.testing.assert_allclose(only[0].values, maps[1].values, rtol=1e-5)


def test_relevance_of_an_asymmetry_is_mirrored_with_the_scan() -> None:
    model = vit(head=LinearHeadConfig(pooling="mean+std+mirror"))
    assert model.head is not None
    model.head.linear.weight[:, : 2 * 24] = 0  # what only |token - mirrored token| counts for
    volume = head_volume()
    mirrored = Volume(volume.voxels[..., ::-1].copy(), volume.affine)
    here, there = (Explainer(model, ["relevance"], ["ICH"]).maps(one)[0].values for one in (volume, mirrored))
    np.testing.assert_allclose(here, there[..., ::-1], rtol=1e-4, atol=1e-6 * here.max())
    assert not np.allclose(here, there, rtol=0.01)


def test_recomputed_blocks_have_the_same_relevance() -> None:
    volume = head_volume()
    kept, recomputed = (
        Explainer(vit(checkpoint_activations=on), ["relevance"], ["ICH"]).maps(volume)[0].values for on in (False, True)
    )
    np.testing.assert_allclose(recomputed, kept, rtol=1e-5)
    model = vit(checkpoint_activations=True)
    Explainer(model, ["relevance"], ["ICH"]).maps(volume)
    assert model.backbone.config.checkpoint_activations  # as it was


def test_rollout_and_heads_of_a_model() -> None:
    model, volume = vit(), head_volume()
    roll, heads = Explainer(model, ["rollout", "heads"], []).maps(volume)
    assert (roll.kind, heads.values.shape) == ("rollout", (HEADS, 3, 3, 3))
    with AttentionMaps() as maps:
        model.tokens(model.config.input.whole(torch.from_numpy(volume.voxels)[None, None]))
    expected = rollout([m.mean(1) for m in maps.kept], PREFIX)
    np.testing.assert_allclose(roll.values.ravel(), expected[0], rtol=1e-5)
    np.testing.assert_allclose(heads.values.reshape(HEADS, -1), cls_heads(maps.kept[-1], PREFIX)[0], rtol=1e-5)


def test_colors_tell_groups_of_tokens_apart_and_leave_air_black() -> None:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(2, 16)) * 5
    group = np.arange(40) % 2
    tokens = centers[group] + rng.normal(size=(40, 16))
    foreground = np.arange(40) < 30
    colors = TokenColors.of(tokens, foreground)
    painted = colors.paint(tokens, foreground)
    assert (painted[30:] == 0).all()
    assert painted.min() >= 0
    assert painted.max() <= 1
    first = painted[:30, 0]
    assert abs(first[group[:30] == 0].mean() - first[group[:30] == 1].mean()) > 0.7
    np.testing.assert_array_equal(colors.paint(tokens[:5], foreground[:5]), painted[:5])  # whatever else is painted
    with pytest.raises(UsageError, match="2 patches of a head"):
        TokenColors.of(tokens, np.arange(40) < 2)


@pytest.mark.parametrize(
    ("build", "kinds", "labels", "expected"),
    [
        (vit, ["layercam"], [], "these weights give: rollout, heads, relevance, pca"),
        (vit, ["relevance"], ["IHC"], "did you mean ICH?"),
    ],
)
def test_what_a_model_cannot_give_is_said(
    build: Callable[[], PackagedModel], kinds: list[str], labels: list[str], expected: str
) -> None:
    with pytest.raises(UsageError) as raised:
        Explainer(build(), kinds, labels)  # type: ignore[arg-type]
    assert expected in str(raised.value)


def test_gradients_do_not_reach_the_weights() -> None:
    model = vit()
    Explainer(model, ["relevance"], ["ICH"]).maps(head_volume())
    gradients: list[Tensor | None] = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is None for gradient in gradients)
