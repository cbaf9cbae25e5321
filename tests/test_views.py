"""Views: windows, affine sampling and intensity changes, applied exactly and drawn from the right distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from fmct.views.crops import CropConfig
from fmct.views.intensity import IntensityConfig, IntensityParameters, blur, change_intensity
from fmct.views.spatial import affine, identity, sample
from fmct.views.windows import BONE, BRAIN, Window, windows


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, index]) for index in range(count)]


def smooth_volumes(batch: int, side: int = 24) -> torch.Tensor:
    noise = np.random.default_rng(0).normal(size=(batch, 1, side, side, side))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 2, 2, 2)) * 2000
    return torch.from_numpy(smooth.astype(np.int16))


def test_windows_scale_and_clip() -> None:
    hu = torch.tensor([-1024, 0, 40, 80, 3000], dtype=torch.int16).view(1, 1, 1, 1, 5)
    brain, bone = windows(hu, [BRAIN, BONE])[0, :, 0, 0]
    assert brain.tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    assert bone.tolist() == pytest.approx([0, 800 / 2800, 840 / 2800, 880 / 2800, 1])


def test_window_refuses_zero_width() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        Window(level_hu=40, width_hu=0)


def test_identity_view_is_the_volume() -> None:
    hu = smooth_volumes(2)
    torch.testing.assert_close(sample(hu, identity(2), 24), hu.float(), atol=0.05, rtol=0)


def test_flip_mirrors_left_and_right_only() -> None:
    hu = smooth_volumes(1)
    zero = torch.zeros(1, 3, dtype=torch.float64)
    theta = affine(zero, torch.ones(1, dtype=torch.float64), zero, torch.tensor([True]))
    torch.testing.assert_close(sample(hu, theta, 24), hu.float().flip(4), atol=0.05, rtol=0)


def test_crop_is_the_subvolume() -> None:
    hu = smooth_volumes(1)
    share = torch.tensor([0.5], dtype=torch.float64)
    center = torch.tensor([[0.5, -0.5, 0.0]], dtype=torch.float64)  # z high, y low, x in the middle
    theta = affine(center, share, torch.zeros(1, 3, dtype=torch.float64), torch.tensor([False]))
    torch.testing.assert_close(sample(hu, theta, 12), hu[:, :, 12:, :12, 6:18].float(), atol=0.05, rtol=0)


def test_rotation_agrees_with_scipy() -> None:
    hu = smooth_volumes(1)
    zero = torch.zeros(1, 3, dtype=torch.float64)
    rotation = torch.tensor([[10.0, 0, 0]], dtype=torch.float64)
    ours = sample(hu, affine(zero, torch.ones(1, dtype=torch.float64), rotation, torch.tensor([False])), 24)[0, 0]
    theirs = ndimage.rotate(hu[0, 0].double().numpy(), 10, axes=(2, 1), reshape=False, order=1)
    inner = slice(6, 18)
    difference = np.abs(ours.numpy() - theirs)[inner, inner, inner]
    assert difference.max() < 0.02 * np.abs(theirs).max()


def test_outside_the_volume_is_air() -> None:
    hu = torch.zeros(1, 1, 8, 8, 8, dtype=torch.int16)
    zero = torch.zeros(1, 3, dtype=torch.float64)
    theta = affine(zero, torch.full((1,), 2.0, dtype=torch.float64), zero, torch.tensor([False]))
    assert sample(hu, theta, 16)[0, 0, 0, 0, 0].item() == -1024


def test_coarse_views_average_and_keep_the_mean() -> None:
    hu = torch.randint(-1000, 1000, (1, 1, 24, 24, 24), dtype=torch.int16)
    view = sample(hu, identity(1), 8)
    blocks = hu.float().view(8, 3, 8, 3, 8, 3).mean((1, 3, 5))
    torch.testing.assert_close(view[0, 0], blocks, atol=1e-2, rtol=0)


def test_batched_views_equal_one_by_one() -> None:
    hu = smooth_volumes(3, side=36)  # some crops are coarse enough to be averaged first, some are not
    theta = CropConfig(share=(0.4, 0.9)).draw(generators(3))
    drawn = IntensityConfig(gain=0.3, shift=0.2, gamma=0.5, blur_voxels=1.0).draw(generators(3))
    together = change_intensity(windows(sample(hu, theta, 12), [BRAIN, BONE]), drawn)
    for index, generator in enumerate(generators(3)):
        alone = IntensityConfig(gain=0.3, shift=0.2, gamma=0.5, blur_voxels=1.0).draw([generator])
        view = windows(sample(hu[index : index + 1], theta[index : index + 1], 12), [BRAIN, BONE])
        torch.testing.assert_close(change_intensity(view, alone)[0], together[index], atol=1e-5, rtol=0)


def test_crops_stay_inside_and_fill_their_range() -> None:
    theta = CropConfig(share=(0.3, 0.8), rotation_deg=0, flip_probability=0.5).draw(generators(2000))
    side = theta[:, 1, 1]
    assert 0.3 <= side.min() < 0.32
    assert 0.78 < side.max() <= 0.8
    assert (theta[:, :, 3].abs() + side[:, None] <= 1 + 1e-6).all()
    flipped = (theta[:, 0, 0] < 0).float().mean()
    assert 0.45 < flipped < 0.55
    assert (theta[:, 1, 1] > 0).all()
    assert (theta[:, 2, 2] > 0).all()


def test_default_intensity_changes_nothing() -> None:
    views = torch.rand(2, 3, 6, 6, 6)
    torch.testing.assert_close(change_intensity(views, IntensityConfig().draw(generators(2))), views)


def test_blur_agrees_with_scipy() -> None:
    views = torch.rand(2, 2, 16, 16, 16)
    blurred = blur(views, torch.tensor([1.0, 0.5]))
    for scan, sigma in enumerate([1.0, 0.5]):
        expected = ndimage.gaussian_filter(views[scan, 0].numpy(), sigma, mode="nearest", radius=3)
        np.testing.assert_allclose(blurred[scan, 0].numpy(), expected, atol=1e-4)


def test_each_change_reaches_the_scans_that_drew_it_and_no_others() -> None:
    views = torch.rand(4, 2, 6, 6, 6)
    zero = torch.zeros(4)
    drawn = IntensityParameters(
        gain=torch.tensor([1, 1.2, 1, 1]), shift=zero, gamma=torch.tensor([1, 1, 2.0, 1]), blur_voxels=zero.clone()
    )
    drawn.blur_voxels[3] = 0.7
    changed = change_intensity(views, drawn)
    torch.testing.assert_close(changed[0], views[0])
    torch.testing.assert_close(changed[1], ((views[1] - 0.5) * 1.2 + 0.5).clamp(0, 1))
    torch.testing.assert_close(changed[2], views[2] ** 2)
    torch.testing.assert_close(changed[3], blur(views[3:], torch.tensor([0.7]))[0], atol=1e-6, rtol=0)


def test_share_must_be_a_range() -> None:
    with pytest.raises(ValueError, match="least"):
        CropConfig(share=(0.9, 0.5))
