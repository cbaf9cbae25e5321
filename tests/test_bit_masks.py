"""Masks packed into words against the same masks as booleans: every operation, on grids of all widths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from fmct.data.bit_masks import BitMask, moved
from fmct.data.bit_words import whole_grid
from fmct.data.grid import Grid

SHAPES = [(1, 1, 1), (5, 7, 63), (4, 3, 64), (6, 5, 65), (3, 9, 127), (9, 8, 130)]
CROSS, CUBE = ndimage.generate_binary_structure(3, 1), ndimage.generate_binary_structure(3, 3)


@pytest.fixture(params=SHAPES, ids=str)
def masks(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """A sparse mask, with all corners of the grid, and a dense one."""
    rng = np.random.default_rng(sum(request.param))
    sparse, dense = rng.random(request.param) < 0.05, rng.random(request.param) < 0.8
    for corner in np.ndindex(2, 2, 2):
        sparse[tuple(-np.array(corner))] = True
    return sparse, dense


def same(packed: BitMask, expected: np.ndarray) -> bool:
    """Whether a packed mask is what is expected, and nothing lies beyond its grid."""
    spare = packed.words & ~whole_grid(packed.words.shape, packed.columns)
    return packed.shape_zyx == expected.shape and not spare.any() and np.array_equal(packed.unpacked(), expected)


def grown(mask: np.ndarray, steps: int, within: np.ndarray | None = None) -> np.ndarray:
    for step in range(steps):
        mask = ndimage.binary_dilation(mask, CUBE if step % 2 else CROSS)
        mask = mask if within is None else mask & within
    return mask


def test_combining(masks: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = masks
    one, other = BitMask.of(a), BitMask.of(b)
    assert same(one & other, a & b)
    assert same(one | other, a | b)
    assert same(one - other, a & ~b)
    assert same(~one, ~a)
    assert one.count() == a.sum()
    for found, axes in zip(one.occupied(), ((1, 2), (0, 2), (0, 1)), strict=True):
        assert np.array_equal(found, a.any(axis=axes))


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_growing_and_thinning(masks: tuple[np.ndarray, np.ndarray], steps: int) -> None:
    a, b = masks
    one = BitMask.of(a)
    assert same(one.grown(steps), grown(a, steps))
    assert same((one & BitMask.of(b)).grown(steps, within=BitMask.of(b)), grown(a & b, steps, b))
    assert same(BitMask.of(b).thinned(steps), ~grown(~b, steps))
    assert same(one.closed(steps), ~grown(~grown(a, steps), steps))


def test_growing_ends_when_nothing_is_left(masks: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = masks
    expected = grown(a & b, 60, b)
    assert same((BitMask.of(a) & BitMask.of(b)).grown(10_000, within=BitMask.of(b)), expected)


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_columns(length: int) -> None:
    mask = np.random.default_rng(length).random((12, 4, 70)) < 0.7
    expected = np.zeros_like(mask)
    for start in range(12 - length + 1):
        whole = mask[start : start + length].all(axis=0)
        expected[start : start + length] |= whole
    assert same(BitMask.of(mask).columns_of(length), expected)
    above = mask.copy()
    above[:5] = False
    assert same(BitMask.of(mask).above(5), above)


def test_half_grids(masks: tuple[np.ndarray, np.ndarray]) -> None:
    a, _ = masks
    padded = np.pad(a, [(0, -count % 2) for count in a.shape])
    z, y, x = (count // 2 for count in padded.shape)
    half = padded.reshape(z, 2, y, 2, x, 2).any(axis=(1, 3, 5))
    assert np.array_equal(BitMask.of(a).halved(), half)
    assert np.array_equal(BitMask.of(a).every_other(), a[::2, ::2, ::2])
    whole = half.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    assert same(BitMask.doubled(half, a.shape), whole[: a.shape[0], : a.shape[1], : a.shape[2]])


def test_thresholds_and_boxes(masks: tuple[np.ndarray, np.ndarray]) -> None:
    a, _ = masks
    rng = np.random.default_rng(0)
    values = rng.integers(-1000, 1000, a.shape).astype(np.int16)
    assert same(BitMask.exceeding(values, -300), values > -300)
    planes, rows, columns = (rng.random(count) < 0.5 for count in a.shape)
    assert same(BitMask.box(planes, rows, columns), planes[:, None, None] & rows[:, None] & columns)


@pytest.mark.parametrize("seed", range(40))
def test_moving_takes_the_nearest_voxel_and_nothing_from_beyond(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid, to = (
        Grid(rng.uniform(-reach, reach, 3), rng.uniform(0.5, 3), tuple(int(n) for n in rng.integers(1, most, 3)))
        for reach, most in ((50, 80), (80, 140))
    )
    masks = [rng.random(grid.shape_zyx) < 0.5 for _ in range(3)]
    places = [np.rint((to.centers_mm(a) - grid.first_ras_mm[a]) / grid.spacing_mm).astype(int) for a in (2, 1, 0)]
    picks = np.ix_(*(np.clip(n, -1, count) + 1 for n, count in zip(places, grid.shape_zyx, strict=True)))
    for found, mask in zip(moved([BitMask.of(mask) for mask in masks], grid, to), masks, strict=True):
        assert same(found, np.pad(mask, 1)[picks])
