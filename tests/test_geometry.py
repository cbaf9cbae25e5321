"""Geometry and resampling against analytic pictures, NumPy restatements and each other."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fmct.data.footprint import bracket, footprint_bands
from fmct.data.geometry import PADDING_HU, SliceStack, gantry_tilt_deg, stack_from_affine
from fmct.data.grid import Grid
from fmct.data.nifti import load_nifti
from fmct.data.resampling import cheapest_way, resample

UNEVEN_GAPS = np.array([4.0, 4.0, 4.0, 1.08, 7.0, 7.0, 7.0, 4.0, 4.0])
SLOPE = np.array([2.0, -3.0, 1.5])


def ramp(points_ras: np.ndarray) -> np.ndarray:
    return points_ras @ SLOPE + 100


def stack_of(
    tilt_deg: float = 0.0, turn_deg: float = 0.0, along_z: bool = True, gaps: np.ndarray = UNEVEN_GAPS
) -> SliceStack:
    """A linear ramp sampled on slices that are tilted about x, then turned about z, with uneven gaps."""
    tilt, turn = np.radians([tilt_deg, turn_deg])
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    columns = rotation @ [-1.1, 0, 0]
    rows = rotation @ [0, -0.9 * np.cos(tilt), -0.9 * np.sin(tilt)]
    normal = rotation @ [0, -np.sin(tilt), np.cos(tilt)]
    travel = np.array([0, 0, 1 / np.cos(tilt)]) if along_z else normal
    origins = np.array([33.0, 30.0, -20.0]) + np.concatenate([[0], np.cumsum(gaps)])[:, None] * travel
    points = origins[:, None, None] + np.arange(64)[:, None, None] * rows + np.arange(60)[:, None] * columns
    return SliceStack(np.rint(ramp(points)).astype(np.int16), origins, rows, columns)


def inside(stack: SliceStack, grid: Grid) -> np.ndarray:
    """Voxels that lie within the stack with all of their extent."""
    centers = np.stack(np.meshgrid(*(grid.centers_mm(axis) for axis in (2, 1, 0)), indexing="ij"), axis=-1)[..., ::-1]
    frame = np.stack([stack.column_step_ras_mm, stack.row_step_ras_mm, stack.normal_ras], axis=1)
    ok = np.ones(grid.shape_zyx, bool)
    for corner in itertools.product([-0.5, 0.5], repeat=3):
        points = centers + np.array(corner) * grid.spacing_mm
        depth = points @ stack.normal_ras
        ok &= (depth >= stack.positions_mm[0]) & (depth <= stack.positions_mm[-1])
        for origin in stack.origins_ras_mm:  # in all slices, shifted as they are
            index = (points - origin) @ np.linalg.inv(frame).T
            ok &= (index[..., 0] >= 0) & (index[..., 0] <= stack.hu.shape[2] - 1)
            ok &= (index[..., 1] >= 0) & (index[..., 1] <= stack.hu.shape[1] - 1)
    return ok


@pytest.mark.parametrize(
    ("stack", "way"),
    [
        (stack_of(), "separable"),
        (stack_of(18.5), "tilted"),
        (stack_of(-25), "tilted"),
        (stack_of(18.5, along_z=False), "tilted"),
        (stack_of(18.5, 10), "oblique"),
        (stack_of(0, -40), "oblique"),
    ],
)
@pytest.mark.parametrize("spacing_mm", [0.8, 2.5])
def test_a_ramp_is_reproduced_where_it_is(stack: SliceStack, way: str, spacing_mm: float) -> None:
    assert cheapest_way(stack) == way
    low, high = stack.bounds_ras_mm()
    grid = Grid.centered((low + high) / 2, spacing_mm, (12, 12, 12))
    hu = resample(stack, grid)
    ok = inside(stack, grid)
    assert ok.mean() > 0.3
    centers = np.stack(np.meshgrid(*(grid.centers_mm(axis) for axis in (2, 1, 0)), indexing="ij"), axis=-1)[..., ::-1]
    assert np.abs(hu - ramp(centers))[ok].max() <= 1.01  # the stack and the volume are both rounded to whole HU


def test_the_three_ways_agree() -> None:
    rng = np.random.default_rng(3)
    even = stack_of()
    stack = SliceStack(rng.integers(-200, 400, even.hu.shape).astype(np.int16), *frame_of(even))
    low, high = stack.bounds_ras_mm()
    for spacing_mm, tolerance in ((0.7, 6), (2.0, 12)):
        grid = Grid.centered((low + high) / 2, spacing_mm, (14, 16, 18))
        separable, tilted, oblique = (
            resample(stack, grid, way).astype(int) for way in ("separable", "tilted", "oblique")
        )
        assert np.abs(tilted - separable).mean() < 1.5
        assert np.abs(oblique - separable).mean() < tolerance / 2
        assert np.abs(tilted - separable).max() < 3 * tolerance
    leaning = stack_of(18.5)
    stack = SliceStack(rng.integers(-200, 400, leaning.hu.shape).astype(np.int16), *frame_of(leaning))
    grid = Grid.centered(np.mean(stack.bounds_ras_mm(), axis=0), 1.5, (14, 16, 18))
    assert np.abs(resample(stack, grid, "tilted").astype(int) - resample(stack, grid, "oblique")).mean() < 6


def frame_of(stack: SliceStack) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return stack.origins_ras_mm, stack.row_step_ras_mm, stack.column_step_ras_mm


def test_aligned_resampling_is_the_mean_of_the_interpolant() -> None:
    """Restated with numpy.interp on 400 points per voxel, axis by axis, outside included."""
    rng = np.random.default_rng(5)
    shape = stack_of().hu.shape
    stack = SliceStack(rng.integers(-1000, 1500, shape).astype(np.int16), *frame_of(stack_of()))
    grid = Grid.covering(*stack.bounds_ras_mm(), 2.3)
    expected = stack.hu.astype(float) + 1024
    knots = [
        stack.origins_ras_mm[:, 2],
        stack.origins_ras_mm[0, 1] + stack.row_step_ras_mm[1] * np.arange(shape[1]),
        stack.origins_ras_mm[0, 0] + stack.column_step_ras_mm[0] * np.arange(shape[2]),
    ]
    for axis in range(3):
        sub = (np.arange(400) + 0.5) / 400 - 0.5
        points = (grid.centers_mm(2 - axis)[:, None] + sub * grid.spacing_mm).ravel()
        order = np.argsort(knots[axis])
        sorted_knots = knots[axis][order]
        halves = np.diff(sorted_knots)[[0, -1]] / 2
        weights = np.stack([np.interp(points, sorted_knots, row) for row in np.eye(len(order))])
        weights *= (points >= sorted_knots[0] - halves[0]) & (points <= sorted_knots[-1] + halves[1])
        weights = weights.reshape(len(order), -1, 400).mean(axis=2)
        expected = np.moveaxis(np.tensordot(weights, expected.take(order, axis=axis), (0, axis)), 0, axis)
    assert np.abs(resample(stack, grid) - (expected - 1024)).max() < 8
    assert np.abs(resample(stack, grid) - (expected - 1024)).mean() < 0.6


@pytest.mark.parametrize("width_mm", [0.3, 1.0, 6.5])
@pytest.mark.parametrize("turned", [False, True])
def test_footprint_bands_are_means_of_the_linear_interpolant(width_mm: float, turned: bool) -> None:
    knots = np.array([0.0, 4.0, 8.0, 9.08, 16.0])
    centers = np.arange(-6, 24) + 0.37
    bands = footprint_bands(knots[::-1] if turned else knots, centers, width_mm)
    assert np.ptp(np.diff(bands.indptr)) == 0  # as many entries in each row
    fine = 2000
    points = centers[:, None] + width_mm * ((np.arange(fine) + 0.5) / fine - 0.5)
    defined = (points >= -2.0) & (points <= 16.0 + 6.92 / 2)
    expected = np.stack([(np.interp(points, knots, hat) * defined).mean(axis=1) for hat in np.eye(len(knots))], axis=1)
    assert bands.toarray()[:, :: -1 if turned else 1] == pytest.approx(expected, abs=1e-3)


def test_footprints_preserve_means_and_know_where_they_are_defined() -> None:
    knots = np.array([0.0, 4.0, 8.0, 9.08, 16.0])
    weights = footprint_bands(knots, np.arange(-4, 22) + 0.5, 1.0).toarray()
    assert weights.sum(axis=0) == pytest.approx(np.array([4.0, 4.0, 2.54, 4.0, 6.92]), abs=1e-5)
    assert weights.sum(axis=1)[4:18] == pytest.approx(1.0, abs=1e-6)
    assert weights.sum(axis=1)[:2] == pytest.approx(0.0)
    lower, upper_weight, defined = bracket(np.array([-2.5, -1.0, 8.54, 19.0, 20.0]), knots)
    assert lower.tolist() == [0, 0, 2, 3, 3]
    assert upper_weight == pytest.approx([0, 0, 0.5, 1, 1])
    assert defined.tolist() == [False, True, True, True, False]


def test_padding_and_metal_are_clamped_before_averaging() -> None:
    hu = np.full((4, 8, 8), PADDING_HU, np.int16)
    hu[:, :, 4:] = 31000
    stack = SliceStack(hu, np.arange(4)[:, None] * np.array([0, 0, 2.0]), np.array([0, 1.0, 0]), np.array([1.0, 0, 0]))
    values = [resample(stack, Grid(np.array([x, 3.5, 3.0]), 1.0, (1, 1, 1))).item() for x in (1.5, 5.5)]
    assert values == [-1024, 3071]
    middle = Grid(np.array([3.5, 3.5, 3.0]), 1.0, (1, 1, 1))
    assert resample(stack, middle).item() == pytest.approx((3071 - 1024) / 2, abs=1)


def test_tilt_is_the_angle_of_normal_and_travel() -> None:
    assert gantry_tilt_deg(stack_of(18.5).origins_ras_mm, stack_of(18.5).normal_ras) == pytest.approx(18.5)
    assert gantry_tilt_deg(stack_of(-18.5).origins_ras_mm, stack_of(-18.5).normal_ras) == pytest.approx(18.5)
    oblique = stack_of(18.5, along_z=False)
    assert gantry_tilt_deg(oblique.origins_ras_mm, oblique.normal_ras) == pytest.approx(0, abs=1e-6)
    assert stack_of(18.5).gaps_mm == pytest.approx(UNEVEN_GAPS)


@pytest.mark.parametrize("shear", [0.0, -2.1])
def test_storage_order_of_a_nifti_does_not_matter(tmp_path: Path, shear: float) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(-1000, 1000, (20, 24, 10)).astype(np.int16)
    affine = np.array([[-1.0, 0, 0, 9], [0, -0.9, 0, 11], [0, shear / 5, 5.0, -20], [0, 0, 0, 1]])
    reference = None
    for order in itertools.permutations(range(3)):
        for flips in itertools.product([False, True], repeat=3):
            stored, moved = values.transpose(order), affine[:, [*order, 3]].copy()
            for axis in np.flatnonzero(flips):
                moved[:3, 3] += moved[:3, axis] * (stored.shape[axis] - 1)
                moved[:3, axis] *= -1
                stored = np.flip(stored, axis)
            path = tmp_path / "x.nii"
            image = nib.Nifti1Image(stored, moved)
            image.set_sform(moved, 1)
            nib.save(image, path)
            stack = load_nifti(path)
            hu = resample(stack, Grid.covering(*stack.bounds_ras_mm(), 2.0))
            reference = hu if reference is None else reference
            assert np.array_equal(hu, reference)
    assert reference is not None
    assert reference.std() > 100


def test_the_qform_counts_only_without_sform(tmp_path: Path) -> None:
    values = np.zeros((8, 8, 8), np.int16)
    sform, qform = np.diag([2.0, 2, 2, 1]), np.diag([3.0, 3, 3, 1])
    image = nib.Nifti1Image(values, None)
    image.set_sform(sform, 1)
    image.set_qform(qform, 1)
    nib.save(image, tmp_path / "both.nii.gz")
    assert load_nifti(tmp_path / "both.nii.gz").pixel_mm == pytest.approx((2, 2))
    image.set_sform(sform, 0)
    nib.save(image, tmp_path / "q.nii.gz")
    assert load_nifti(tmp_path / "q.nii.gz").pixel_mm == pytest.approx((3, 3))


def test_stack_refuses_disorder() -> None:
    hu = np.zeros((3, 4, 4), np.int16)
    steps = np.array([0, 1.0, 0]), np.array([1.0, 0, 0])
    with pytest.raises(ValueError, match="in order"):
        SliceStack(hu, np.array([[0, 0, 0.0], [0, 0, 2], [0, 0, 1]]), *steps)
    with pytest.raises(ValueError, match="don't fit"):
        SliceStack(hu, np.zeros((2, 3)), *steps)
    assert stack_from_affine(np.zeros((4, 5, 6), np.int16), np.diag([1.0, 1, 3, 1])).hu.shape == (6, 5, 4)
