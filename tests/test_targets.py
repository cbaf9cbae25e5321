"""What masked image modelling restores: pooled, smoothed and weighted targets against restatements in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fmct.console.errors import UsageError
from fmct.losses.reconstruction import patchify, reconstruction_loss
from fmct.losses.targets import make_target, spread, unsaturated
from fmct.models.decoder import DecoderConfig
from fmct.models.mask_orders import RandomMasking
from fmct.models.masking import Foreground
from fmct.models.vit3d import ViT3D, ViT3DConfig
from fmct.tasks.masked_modeling import MaskedModelingConfig

PATCH = (4, 4, 4)


def views(seed: int = 0) -> Tensor:
    """Return two scans in two windows, some voxels at an end of one window and some at the same end of both."""
    x = torch.rand(2, 2, 8, 8, 8, generator=torch.Generator().manual_seed(seed))
    x[:, :, :, :, :2] = 0
    x[:, :, :, :2] = 1
    x[:, 0, 5] = 1
    x[:, 1, 6] = 0
    return x


def encoder() -> ViT3D:
    torch.manual_seed(0)
    return ViT3DConfig(width=24, depth=1, heads=4, patch_voxels=PATCH, registers=1).build(2, (8, 8, 8)).eval()


def loss(config: MaskedModelingConfig, x: Tensor, foreground: Foreground | None = None) -> Tensor:
    model = encoder()
    torch.manual_seed(1)
    decoder = config.decoder.build(model, 2, config.target_pool_voxels)
    order = RandomMasking().draw([np.random.default_rng(index) for index in range(len(x))], model.grid_zyx)
    return config.loss(model, decoder, x, order, foreground)[0]


SMALL = DecoderConfig(depth=1, width=12, heads=2)


def test_what_every_window_shows_at_one_end_is_saturated() -> None:
    kept = unsaturated(views())[:, 0].bool()
    assert not kept[:, :5, :, :2].any()
    assert not kept[:, :5, :2].any()
    assert kept[:, 5, 2:, 2:].all()  # only one of two windows is at its end there
    assert unsaturated(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1, 1)).item() == 1  # between two windows that don't meet


def test_pooled_targets_are_means_of_what_counts() -> None:
    x = views()
    made = make_target(x, PATCH, blur_voxels=0, pool_voxels=2, skip_saturated=True)
    assert made.weight_BNP is not None
    kept = unsaturated(x)[:, 0].numpy().astype(bool)
    cubes = patchify(torch.arange(64.0).view(1, 1, 4, 4, 4), (2, 2, 2))[0].long()
    for patch, cube in ((0, 3), (3, 5), (6, 0), (7, 7)):
        z, y, x0 = np.unravel_index(int(cubes[patch, cube]), (4, 4, 4))
        inside = (slice(2 * z, 2 * z + 2), slice(2 * y, 2 * y + 2), slice(2 * x0, 2 * x0 + 2))
        weight = kept[1][inside].mean()
        assert made.weight_BNP[1, patch, 2 * cube] == pytest.approx(weight)
        for window in range(2):
            values = x[1, window].numpy()[inside][kept[1][inside]]
            expected = values.mean() if values.size else 0
            assert made.values_BNP[1, patch, 2 * cube + window] == pytest.approx(expected, abs=1e-5)


def test_smoothing_takes_nothing_in_from_what_is_left_out() -> None:
    x = torch.full((1, 1, 8, 8, 8), 0.4)
    x[..., 4:] = 1
    kept = make_target(x, PATCH, blur_voxels=1.0, pool_voxels=1, skip_saturated=True).values_BNP
    assert torch.allclose(kept[:, 0], torch.tensor(0.4), atol=1e-5)
    plain = make_target(x, PATCH, blur_voxels=1.0, pool_voxels=1, skip_saturated=False).values_BNP
    assert plain[:, 0].max() > 0.5


@pytest.mark.parametrize("normalize", [False, True])
def test_weighted_loss_follows_numpy(normalize: bool) -> None:
    rng = np.random.default_rng(0)
    prediction, target, weight = (rng.random((2, 3, 5)) for _ in range(3))
    mask = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    goal = target.copy()
    if normalize:
        for index in np.ndindex(2, 3):
            w, t = weight[index], target[index]
            mean = (w * t).sum() / w.sum() if w.sum() > 1 else (w * t).sum()
            variance = (w * (t - mean) ** 2).sum() / max(w.sum() - 1, 1)
            goal[index] = (t - mean) / np.sqrt(variance + 1e-6)
    error = weight * (prediction - goal) ** 2
    expected = [(error[b] * mask[b][:, None]).sum() / max((weight[b] * mask[b][:, None]).sum(), 1) for b in range(2)]
    tensors = (torch.from_numpy(array).float() for array in (prediction, target, mask))
    found = reconstruction_loss(*tensors, normalize, torch.from_numpy(weight).float())
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_weight_of_one_everywhere_changes_nothing() -> None:
    x = views().clamp(0.01, 0.99)
    plain, weighted = (
        loss(MaskedModelingConfig(decoder=SMALL, skip_saturated=skip, normalize_target=True), x)
        for skip in (False, True)
    )
    assert weighted.item() == pytest.approx(plain.item(), rel=1e-5)


def test_seen_patches_count_by_their_weight() -> None:
    x = views()
    none, half, whole = (loss(MaskedModelingConfig(decoder=SMALL, seen_weight=w), x) for w in (0.0, 0.5, 1.0))
    assert half.item() == pytest.approx((none.item() + whole.item()) / 2, rel=1e-5)
    assert whole > none


def test_a_scan_of_which_nothing_counts_adds_nothing_and_breaks_nothing() -> None:
    x = views()
    x[0] = 0
    config = MaskedModelingConfig(decoder=SMALL, skip_saturated=True, target_pool_voxels=2, seen_weight=0.5)
    whole, alone = loss(config, x), loss(config, x[1:].expand(2, -1, -1, -1, -1))
    assert whole.isfinite()
    assert alone.isfinite()
    everything = Foreground.of(torch.ones(2, 8, dtype=torch.bool))
    assert loss(config, x, everything).item() == pytest.approx(whole.item(), rel=1e-5)


def test_pictures_show_cubes_where_they_lie() -> None:
    pooled = make_target(views(), PATCH, blur_voxels=0, pool_voxels=2, skip_saturated=False).values_BNP
    shown = spread(pooled, PATCH, 2).view(2, 8, 4, 4, 4, 2)
    assert torch.equal(shown[:, :, ::2, ::2, ::2].flatten(2), pooled)
    assert torch.equal(shown[:, :, 1::2, 1::2, 1::2].flatten(2), pooled)
    config = MaskedModelingConfig(decoder=SMALL, skip_saturated=True, target_pool_voxels=2, normalize_target=True)
    model, x = encoder(), views()
    order = RandomMasking().draw([np.random.default_rng(index) for index in range(2)], model.grid_zyx)
    decoder = config.decoder.build(model, 2, 2)
    picture = config.picture(model, decoder, x, config.mask(order, None))
    assert picture.isfinite().all()
    assert picture.ndim == 2


def test_cubes_that_do_not_divide_patches_are_refused() -> None:
    with pytest.raises(UsageError, match="cubes of 3 voxels don't divide patches of") as error:
        SMALL.build(encoder(), 2, 3)
    assert "use one of 1, 2, 4" in str(error.value.fix)
