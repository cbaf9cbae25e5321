"""Intensity changes: each does what it says, to the scans that drew it, and reproducibly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from fmct.console.errors import UsageError
from fmct.views.intensity import IntensityConfig, IntensityParameters, add_noise, bend, change_contrast
from fmct.views.network_input import InputConfig
from fmct.views.smoothing import blur
from fmct.views.windows import BONE, BRAIN, Window, windows

LEVELS = (BRAIN, BONE)
SEES = InputConfig(voxels=12, windows=LEVELS)
HU = torch.zeros(1, dtype=torch.int16)
"""Stands for volumes that hold HU."""
EVERYTHING = IntensityConfig(
    gain=0.3, shift=0.2, gamma=0.5, blur_voxels=1.0, noise_hu=10, window_shift_hu=5, window_width=0.2
)


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, index]) for index in range(count)]


def nothing(scans: int) -> IntensityParameters:
    return IntensityConfig().draw(generators(scans), len(LEVELS))


def hu_views(scans: int, side: int = 12) -> torch.Tensor:
    return torch.randn(scans, 1, side, side, side, generator=torch.Generator().manual_seed(0)) * 60 + 40


def test_defaults_change_nothing() -> None:
    hu = hu_views(3)
    assert torch.equal(SEES.shown(hu, HU, nothing(3)), windows(hu, LEVELS))


def test_gain_and_shift_within_windows_are_those_after_them() -> None:
    hu = hu_views(40)
    drawn = IntensityConfig(gain=0.9, shift=0.9, probability=0.7).draw(generators(40), len(LEVELS))
    expected = change_contrast(windows(hu, LEVELS), drawn)
    torch.testing.assert_close(SEES.shown(hu, HU, drawn), expected, atol=2e-6, rtol=0)


def test_blur_agrees_with_scipy() -> None:
    views = torch.rand(3, 2, 16, 16, 16)
    blurred = blur(views, torch.tensor([1.0, 0.5, 0.0]))
    for scan, sigma in enumerate([1.0, 0.5]):
        expected = ndimage.gaussian_filter(views[scan, 0].numpy(), sigma, mode="nearest", radius=3)
        np.testing.assert_allclose(blurred[scan, 0].numpy(), expected, atol=1e-4)
    torch.testing.assert_close(blurred[2], views[2])


def test_each_change_reaches_the_scans_that_drew_it_and_no_others() -> None:
    views = torch.rand(4, 2, 6, 6, 6)
    drawn = replace(
        nothing(4),
        gain=torch.tensor([1, 1.2, 1, 1]),
        shift=torch.tensor([0, 0, 0, 0.1]),
        gamma=torch.tensor([1, 1, 2.0, 1]),
    )
    changed = bend(change_contrast(views, drawn), drawn)
    torch.testing.assert_close(changed[0], views[0])
    torch.testing.assert_close(changed[1], ((views[1] - 0.5) * 1.2 + 0.5).clamp(0, 1))
    torch.testing.assert_close(changed[2], views[2] ** 2)
    torch.testing.assert_close(changed[3], (views[3] + 0.1).clamp(0, 1))


def test_views_of_a_batch_equal_those_one_by_one() -> None:
    hu = hu_views(6)
    drawn = EVERYTHING.draw(generators(6), len(LEVELS))
    assert all(0 < (values != 0).sum() < 6 for values in (drawn.noise_hu, drawn.shift, drawn.blur_voxels))
    together = SEES.shown(hu, HU, drawn)
    for index, generator in enumerate(generators(6)):
        alone = SEES.shown(hu[index : index + 1], HU, EVERYTHING.draw([generator], len(LEVELS)))
        assert torch.equal(alone[0], together[index])


def test_scans_changed_together_are_changed_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    hu, drawn = hu_views(6), EVERYTHING.draw(generators(6), len(LEVELS))
    expected = SEES.shown(hu, HU, drawn)
    monkeypatch.setattr("fmct.views.spatial.scans_at_once", lambda _: 4)
    torch.testing.assert_close(SEES.shown(hu, HU, drawn), expected, atol=1e-6, rtol=0)


def test_noise_is_gaussian_and_its_own_for_each_scan() -> None:
    hu = torch.zeros(4, 1, 24, 24, 24)
    drawn = replace(nothing(4), noise_hu=torch.tensor([5.0, 0, 20, 5]), noise_seed=torch.tensor([7, 8, 9, 10]))
    noisy = add_noise(hu, drawn)
    assert (hu == 0).all()  # what was given stays
    assert noisy.std((1, 2, 3, 4)).tolist() == pytest.approx([5, 0, 20, 5], rel=0.03)
    assert noisy.mean((1, 2, 3, 4)).abs().max() < 0.6
    correlation = torch.corrcoef(noisy.flatten(1)[[0, 2, 3]]) - torch.eye(3)
    assert correlation.abs().max() < 0.05
    assert torch.equal(add_noise(hu, drawn), noisy)
    assert torch.equal(
        add_noise(hu[2:3], replace(nothing(1), noise_hu=drawn.noise_hu[2:3], noise_seed=drawn.noise_seed[2:3]))[0],
        noisy[2],
    )
    assert not torch.equal(add_noise(hu, replace(drawn, noise_seed=drawn.noise_seed + 1)), noisy)


def test_windows_vary_for_each_scan_and_channel() -> None:
    hu = hu_views(2)
    drawn = replace(
        nothing(2),
        level_shift_hu=torch.tensor([[5.0, -10], [0, 0]]),
        width_factor=torch.tensor([[1.0, 0.5], [1, 1.25]]),
    )
    shown = SEES.shown(hu, HU, drawn)
    narrow = [Window(level_hu=45, width_hu=80), Window(level_hu=590, width_hu=1400)]
    torch.testing.assert_close(shown[:1], windows(hu[:1], narrow))
    torch.testing.assert_close(shown[1:], windows(hu[1:], [BRAIN, Window(level_hu=600, width_hu=3500)]))


def test_draws_have_their_range_and_probability() -> None:
    drawn = EVERYTHING.model_copy(update={"probability": 0.4}).draw(generators(3000), 2)
    for values, unchanged, least, greatest in (
        (drawn.gain, 1, 0.7, 1.3), (drawn.shift, 0, -0.2, 0.2), (drawn.gamma, 1, np.exp(-0.5), np.exp(0.5)),
        (drawn.blur_voxels, 0, 0, 1), (drawn.noise_hu, 0, 0, 10),
        (drawn.level_shift_hu[:, 0], 0, -5, 5), (drawn.level_shift_hu[:, 1], 0, -5, 5),
        (drawn.width_factor[:, 1], 1, np.exp(-0.2), np.exp(0.2)),
    ):  # fmt: skip
        room = 0.02 * (greatest - least)
        assert 0.37 < (values != unchanged).float().mean() < 0.43
        assert least - 1e-6 <= values.min() < least + room
        assert greatest - room < values.max() <= greatest + 1e-6
    assert torch.equal(drawn.level_shift_hu[:, 0] != 0, drawn.width_factor[:, 1] != 1)
    assert len(drawn.noise_seed.unique()) == 3000


def test_volumes_that_are_windows_already_take_no_hu() -> None:
    x, volumes = torch.rand(2, 2, 6, 6, 6), torch.zeros(2, 2, 6, 6, 6).half()
    changed = SEES.shown(x, volumes, replace(nothing(2), shift=torch.tensor([0.1, 0])))
    torch.testing.assert_close(changed[1], x[1])
    torch.testing.assert_close(changed[0], (x[0] + 0.1).clamp(max=1))
    with pytest.raises(UsageError, match="take neither noise in HU"):
        EVERYTHING.require_hu()
    IntensityConfig(gain=0.3).require_hu()
