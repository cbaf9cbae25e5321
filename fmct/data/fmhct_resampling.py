"""Resampling by cubic splines onto `Spacing`'s grid, by the cheapest way that is exact for the scan at hand.

All three ways compute what SciPy's `map_coordinates` does in MONAI's `Spacing`, but for rounding: `separable` where no
axis depends on another (every scan that isn't sheared, however it is turned) is one matrix per axis; `sheared` where
slices are shifted against each other (gantry tilt in a NIfTI file) interpolates along slices first, and then in each
plane at its own places; `general` is SciPy's own interpolation of filtered samples, for shear within slices.

Arrays are taken in the order in which they lie in memory: it is matrices that are turned, never voxels.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmct.data.fmhct_banded import Array, Banded
from fmct.data.fmhct_grid import Floats, SpacingGrid
from fmct.data.fmhct_splines import BORDER, filter_matrix, point_matrix, resampling_matrix

NEGLIGIBLE_VOXELS = 5e-4
"""How far shear may shift a point, at most, to be taken for none: rounding of headers does."""

Way = Literal["separable", "sheared", "general"]


def resample_splines(values: NDArray[Any], grid: SpacingGrid, way: Way | None = None) -> Array:
    """Resample a scan.

    Args:
        values: (X, Y, Z) int16 or float32, in any memory order.
        grid: the scan's grid.
        way: None chooses the cheapest that is exact; a more general one may be asked for, to compare.

    Returns:
        (X, Y, Z) float32 on the grid, in any memory order.
    """
    to_scan = without_negligible_shear(grid)
    for axis in range(3):
        if values.strides[axis] < 0:
            values = np.flip(values, axis)
            to_scan[axis] *= -1
            to_scan[axis, 3] += values.shape[axis] - 1
    ways = {"separable": resample_separable, "sheared": resample_sheared, "general": resample_general}
    return ways[way or cheapest_way(to_scan)](values, to_scan, grid.shape_xyz)


def without_negligible_shear(grid: SpacingGrid) -> Floats:
    """Return a grid's `to_scan` with shear that is negligible set to what it is in the middle of the grid."""
    to_scan = grid.to_scan.copy()
    for row in range(3):
        for column in range(row + 1, 3):
            half = (grid.shape_xyz[column] - 1) / 2
            if abs(to_scan[row, column]) * half < NEGLIGIBLE_VOXELS:
                to_scan[row, 3] += to_scan[row, column] * half
                to_scan[row, column] = 0.0
    return to_scan


def cheapest_way(to_scan: Floats) -> Way:
    """Return the cheapest way that is exact."""
    if to_scan[0, 1] != 0:
        return "general"
    return "sheared" if to_scan[0, 2] != 0 or to_scan[1, 2] != 0 else "separable"


def resample_separable(values: NDArray[Any], to_scan: Floats, shape_xyz: tuple[int, int, int]) -> Array:
    """Interpolate along the fastest axis and the next within each slab, then along the slowest."""
    order = sorted(range(3), key=lambda axis: -abs(values.strides[axis]))
    slow, middle, fast = (
        axis_matrix(values.shape[axis], shape_xyz[axis], to_scan[axis, axis], to_scan[axis, 3]) for axis in order
    )
    slabs = values.transpose(order)
    slab = np.empty(slabs.shape[1:], np.float32)
    along_fast = np.empty((slabs.shape[1], shape_xyz[order[2]]), np.float32)
    planes = np.empty((len(slabs), shape_xyz[order[1]], shape_xyz[order[2]]), np.float32)
    for k, plane in enumerate(planes):
        np.copyto(slab, slabs[k])
        rows = slab if fast is None else fast.along_rows(slab, along_fast)
        if middle is None:
            plane[:] = rows
        else:
            middle.along_columns(rows, plane)
    if slow is not None:
        resampled = np.empty((shape_xyz[order[0]], *planes.shape[1:]), np.float32)
        slow.along_columns(planes.reshape(len(planes), -1), resampled.reshape(len(resampled), -1))
        planes = resampled
    return planes.transpose(np.argsort(order))


def axis_matrix(samples: int, points: int, step: float, first: float) -> Banded | None:
    """Return the matrix of an axis, or None where points are the samples."""
    if (samples, step, first) == (points, 1.0, 0.0):
        return None
    return resampling_matrix(samples, points, step, first)


def resample_sheared(values: NDArray[Any], to_scan: Floats, shape_xyz: tuple[int, int, int]) -> Array:
    """Filter within slices, interpolate along them, then within each plane of the grid at its own places."""
    x, y, z = shape_xyz
    columns, rows, slices = values.shape
    filter_x, filter_y = filter_matrix(columns), filter_matrix(rows)
    if to_scan[0, 2] == 0:  # then x is the same in all planes, and done first, where it makes the rest smaller
        filter_x = resampling_matrix(columns, x, to_scan[0, 0], to_scan[0, 3])
    filtered = filter_slices(values, filter_x, filter_y)
    between = resampling_matrix(slices, z, to_scan[2, 2], to_scan[2, 3])
    resampled = np.empty((z, y, x), np.float32)
    along_y = np.empty((y, filter_x.shape[0]), np.float32)
    for planes, sources, weights in between.blocks:
        part = (weights @ filtered[sources].reshape(weights.shape[1], -1)).reshape(-1, *filtered.shape[1:])
        for k, plane in enumerate(part, planes.start):
            at_y, at_x = (to_scan[axis, 2] * k + to_scan[axis, 3] for axis in (1, 0))
            point_matrix(rows, y, to_scan[1, 1], at_y).along_columns(plane, along_y)
            if to_scan[0, 2] == 0:
                resampled[k] = along_y
            else:
                point_matrix(columns, x, to_scan[0, 0], at_x).along_rows(along_y, resampled[k])
    return resampled.transpose(2, 1, 0)


def filter_slices(values: NDArray[Any], filter_x: Banded, filter_y: Banded) -> Array:
    """Apply matrices along x and along y: (X, Y, Z) of the scan to (Z, Y', X')."""
    columns, rows, slices = values.shape
    plane = np.empty((rows, columns), np.float32)
    along_x = np.empty((rows, filter_x.shape[0]), np.float32)
    filtered = np.empty((slices, filter_y.shape[0], filter_x.shape[0]), np.float32)
    for k in range(slices):
        np.copyto(plane, values[:, :, k].T)
        filter_y.along_columns(filter_x.along_rows(plane, along_x), filtered[k])
    return filtered


def resample_general(values: NDArray[Any], to_scan: Floats, shape_xyz: tuple[int, int, int]) -> Array:
    """Filter along each axis, and let SciPy interpolate point by point."""
    columns, rows, slices = values.shape
    in_plane = filter_slices(values, filter_matrix(columns), filter_matrix(rows))
    filtered = np.empty((slices + 2 * BORDER, *in_plane.shape[1:]), np.float32)
    filter_matrix(slices).along_columns(in_plane.reshape(slices, -1), filtered.reshape(len(filtered), -1))
    coefficients = filtered.transpose(2, 1, 0)
    resampled = np.empty(shape_xyz, np.float32)
    places = to_scan[:3, :3], to_scan[:3, 3] + BORDER
    ndimage.affine_transform(coefficients, *places, output=resampled, order=3, mode="nearest", prefilter=False)
    return resampled
