"""Means over voxels of tilted slices against the same means taken point by point, and what may be left out of them."""

from __future__ import annotations

import numpy as np
import pytest

from fmct.data.coarse_slices import coarse_slices
from fmct.data.footprint import even_footprint
from fmct.data.geometry import SliceStack
from fmct.data.grid import Grid
from fmct.data.resampling import cheapest_way, resample
from fmct.data.tilted_means import TiltedMeans

POINTS = 4000


def noise(tilt_deg: float, gaps_mm: tuple[float, ...], turn_deg: float = 0.0, seed: int = 0) -> SliceStack:
    """A stack (K, 40, 36) of noise, 1.1 x .9 mm, whose slices shift as they do under a tilted gantry."""
    rng = np.random.default_rng(seed)
    angle, turn = np.radians(tilt_deg), np.radians(turn_deg)
    rows = np.array([0.0, np.cos(angle), np.sin(angle)]) * 1.1
    columns = np.array([np.cos(turn), np.sin(turn) * np.cos(angle), np.sin(turn) * np.sin(angle)]) * 0.9
    if turn_deg:
        rows = np.cross([0.0, -np.sin(angle), np.cos(angle)], columns / 0.9) * 1.1
    z = np.concatenate([[0.0], np.cumsum(gaps_mm)])
    origins = np.stack([np.full(z.shape, -15.0), np.full(z.shape, -20.0), z], axis=1)
    hu = rng.integers(-900, 900, (len(z), 40, 36)).astype(np.int16)
    return SliceStack(hu, origins, rows, columns)


@pytest.mark.parametrize("width", [0.3, 1.0, 1.5, 2.2])
def test_footprints_are_integrals_of_hats(width: float) -> None:
    rng = np.random.default_rng(0)
    middles = np.concatenate([rng.uniform(-1, 12, 60), [-0.51, -0.5, 0, 5, 11, 11.5, 11.51]]).reshape(1, -1)
    weights, samples = even_footprint(middles, width, 12)
    found = np.zeros((middles.size, 12))
    for of_sample, sample in zip(weights, samples, strict=True):
        np.add.at(found, (np.arange(middles.size), sample[0]), of_sample[0])
    points = middles[0][:, None] + ((np.arange(POINTS) + 0.5) / POINTS - 0.5) * width
    hats = np.stack([np.interp(points, np.arange(-2, 14), row) for row in np.eye(16)], axis=-1).mean(axis=1)
    expected = hats[:, 2:-2]
    expected[:, 0] += hats[:, :2].sum(axis=1)  # beyond the ends, the first and the last sample go on
    expected[:, -1] += hats[:, -2:].sum(axis=1)
    expected[(middles[0] < -0.5) | (middles[0] > 11.5)] = 0
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("tilt_deg", "gaps_mm"), [(18.5, (4.0, 4.0, 1.1, 7.0, 7.0)), (-25.0, (1.5,) * 9), (3.0, (5.0,) * 5)]
)
@pytest.mark.parametrize(("width_mm", "preview"), [(1.5, False), (0.7, False), (2.0, True)])
def test_weights_are_those_of_the_parts_of_a_voxel(
    tilt_deg: float, gaps_mm: tuple[float, ...], width_mm: float, preview: bool
) -> None:
    """Restated voxel by voxel: hats between slices at the middle of each part, footprints along their rows."""
    stack = noise(tilt_deg, gaps_mm)
    means = TiltedMeans(stack, width_mm, preview)
    rng = np.random.default_rng(1)
    low, high = stack.bounds_ras_mm()
    y_mm, z_mm = (rng.uniform(low[axis] - 3, high[axis] + 3, 300) for axis in (1, 2))
    found = means.weights(y_mm, z_mm).toarray()
    expected = np.zeros_like(found)
    for n, (y, z) in enumerate(zip(y_mm, z_mm, strict=True)):
        for dy, dz in zip(*(part[:, 0] for part in means.parts), strict=True):
            place = np.array([y + dy, z + dz])
            depth = place @ means.normal
            hats = np.array([np.interp(depth, means.positions, row) for row in np.eye(len(means.positions))])
            share = means.within(np.array([[depth]])).item() / len(means.parts[0])
            for k in np.flatnonzero(hats):
                row = place @ means.row_step - means.first_rows[k]
                weights, rows = even_footprint(np.array([row]), means.extent, means.rows)
                np.add.at(expected[n], k * means.rows + rows[:, 0], hats[k] * share * weights[:, 0])
    assert found.sum() > 50
    assert np.abs(found - expected).max() < 1e-5
    assert len(means.parts[0]) == 1 if preview else len(means.parts[0]) >= 4


@pytest.mark.parametrize("tilt_deg", [0.0, 18.5, -30.0])
def test_rows_that_are_wanted_are_as_in_the_whole(tilt_deg: float) -> None:
    stack = noise(tilt_deg, (4.0, 4.0, 3.0, 5.0, 5.0))
    grid = Grid.covering(*stack.bounds_ras_mm(), 1.5)
    rows = np.random.default_rng(2).random(grid.shape_zyx[:2]) < 0.3
    rows[:18] = False
    whole = resample(stack, grid)
    assert np.array_equal(resample(stack, grid, rows=rows)[rows], whole[rows])
    assert np.array_equal(resample(stack, grid, rows=np.ones_like(rows)), whole)
    assert resample(stack, grid, rows=np.zeros_like(rows)).shape == whole.shape


@pytest.mark.parametrize(("tilt_deg", "turn_deg"), [(0.0, 0.0), (18.5, 0.0), (-30.0, 0.0), (12.0, 15.0)])
@pytest.mark.parametrize("pixel_mm", [1.0, 2.0, 3.5])
def test_what_lies_around_a_box_is_enough_for_it(tilt_deg: float, turn_deg: float, pixel_mm: float) -> None:
    stack = noise(tilt_deg, (1.0,) * 30, turn_deg)
    low, high = stack.bounds_ras_mm()
    rng = np.random.default_rng(3)
    left_out = 0
    for _ in range(12):
        ends = np.sort(rng.uniform(low - 2, high + 2, (2, 3)), axis=0)
        grid = Grid.covering(ends[0], np.maximum(ends[1], ends[0] + 2), 2.0)
        all_of_it = coarse_slices(stack, pixel_mm, 2.0)
        part = coarse_slices(stack, pixel_mm, 2.0, grid.bounds_ras_mm)
        way = cheapest_way(all_of_it)
        one, other = (resample(pixels, grid, way, preview=True).astype(int) for pixels in (all_of_it, part))
        assert np.abs(one - other).max() <= 1  # rounding of sums in another order
        left_out += part.hu.size < all_of_it.hu.size
    assert left_out > 6
