"""How true volumes are, against a ball that is known exactly; the figures are those that the documentation states."""

from __future__ import annotations

import numpy as np
import pytest

from fmct.benchmarks.accuracy import (
    WAYS,
    Way,
    accuracy,
    by_fmct,
    by_simpleitk,
    checkerboard_left,
    grid_around,
    mean_error_hu,
    noisy,
    scan_of,
    truth_on,
)
from fmct.data.grid import Grid
from fmct.data.preprocessing import IsotropicSettings, preprocess_stack
from fmct.data.rejection import RejectCode
from fmct.data.resampling import resample

LARGEST_DISTANCE_MM = 0.3
LARGEST_VOLUME_ERROR = 0.01
LARGEST_BIAS_HU = 0.05


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_lesions_are_where_they_were_as_large_and_as_dense(way: Way) -> None:
    grid = grid_around()
    found = accuracy(by_fmct(scan_of(way), grid), grid)
    assert found.lesion_mm <= LARGEST_DISTANCE_MM
    assert found.lesion_volume <= LARGEST_VOLUME_ERROR
    assert found.bias_hu <= LARGEST_BIAS_HU


def test_noise_is_averaged_and_means_stay() -> None:
    grid = grid_around()
    stack = noisy(scan_of(WAYS[0]))
    volume = by_fmct(stack, grid)
    assert accuracy(volume, grid).bias_hu < 0.5
    truth = truth_on(grid)
    assert mean_error_hu(volume, grid, truth) < 2.5
    assert mean_error_hu(by_simpleitk(stack, grid), grid, truth) > 2 * mean_error_hu(volume, grid, truth)


def test_patterns_finer_than_a_voxel_average_out() -> None:
    assert checkerboard_left(by_fmct) < 0.02
    assert checkerboard_left(by_simpleitk) > 0.2


@pytest.mark.parametrize("way", [WAYS[2], WAYS[3]], ids=lambda way: way.name)
def test_the_head_crop_changes_no_voxel_that_it_keeps(way: Way) -> None:
    stack = scan_of(way)
    skip = frozenset({RejectCode.NOT_A_HEAD, RejectCode.IMPLAUSIBLE_HU})
    volume = preprocess_stack(stack, IsotropicSettings(shape_voxels=96), "ball", skip)
    whole = resample(stack, Grid(volume.affine[:3, 3], volume.spacing_mm, (96, 96, 96)))
    kept = volume.voxels > -1024
    assert np.abs(volume.voxels.astype(int) - whole)[kept].max() <= 1  # sums in another order
    z, y, x = (volume.affine[axis, 3] + volume.spacing_mm * np.arange(96) for axis in (2, 1, 0))
    from_middle = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    assert kept[from_middle < 67].all()
    assert not kept[from_middle > 68 + 3 * 1.5 + 3].any()
