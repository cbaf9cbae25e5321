"""From slices at their true places to an even grid, by the cheapest way that is exact for the scan at hand.

What is computed is the same in all cases: a voxel is the mean of the scan over the voxel's extent (see `footprint`).
The scan between its samples is the linear interpolant: bilinear within a slice, linear along the slices' normal between
two neighboring slices, each at its own true origin. Outside the scan there is air. Values are clamped before anything
is averaged, so that padding and metal don't bleed.

Three ways: `separable` for slices along the axes (a sparse matrix per axis), `tilted` for slices turned about x by a
gantry tilt or an oblique reformat (one for x, one for y and z together), `oblique` for all else, by points.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fmct.data.footprint import Floats, bracket, bracket_even, footprint_bands, reversed_columns
from fmct.data.geometry import SliceStack
from fmct.data.grid import Grid
from fmct.data.tilted_means import TiltedMeans

AIR_HU = -1024
HIGHEST_HU = 3071
NEGLIGIBLE_MM = 0.05
PLANES_AT_ONCE = 16
ROWS_AT_ONCE = 256
SPARE_FLOATS = 16
"""At the end of rows that are read across: as many as 512 by themselves would all share a few lines of the cache."""
OBLIQUE_POINTS = 1
FEWEST_POINTS = 2
"""For the way by points: samples along an axis for each row, column or slice crossed there."""

Way = Literal["separable", "tilted", "oblique"]
HURange = tuple[int, int]
Planes = Iterator[tuple[slice, NDArray[np.float32]]]


@dataclass(frozen=True, eq=False)
class Options:
    """What may be left out, as `resample` has it."""

    preview: bool
    rows: NDArray[np.bool_] | None


def resample(
    stack: SliceStack,
    grid: Grid,
    way: Way | None = None,
    hu_range: HURange = (AIR_HU, HIGHEST_HU),
    preview: bool = False,
    rows: NDArray[np.bool_] | None = None,
) -> NDArray[np.int16]:
    """Resample a stack onto a grid.

    Args:
        stack: the scan.
        grid: where the voxels lie.
        way: None chooses the cheapest one that is exact; a general one may be asked for, to compare.
        hu_range: values are clamped to it first; its lower end is what lies outside the scan.
        preview: of slices that lie aslant, interpolate at voxel centers in place of averaging.
        rows: (Z, Y) which rows of voxels are wanted; the others may hold anything. None wants all.

    Returns:
        (Z, Y, X) int16 HU.
    """
    ways = {"separable": resample_separable, "tilted": resample_tilted, "oblique": resample_oblique}
    out = np.empty(grid.shape_zyx, np.int16)
    for planes, above in ways[way or cheapest_way(stack)](stack, grid, hu_range, Options(preview, rows)):
        above += hu_range[0]
        out[planes] = np.rint(above, out=above)
    return out


def cheapest_way(stack: SliceStack) -> Way:
    """Return the cheapest way that is right to `NEGLIGIBLE_MM` all over the field of view."""
    _, rows, columns = stack.hu.shape
    spread = np.ptp(stack.origins_ras_mm, axis=0)
    column_drift = np.abs(stack.column_step_ras_mm) * columns
    row_drift = np.abs(stack.row_step_ras_mm) * rows
    if max(spread[0], row_drift[0], column_drift[1], column_drift[2]) > NEGLIGIBLE_MM:
        return "oblique"
    return "tilted" if max(spread[1], row_drift[2]) > NEGLIGIBLE_MM else "separable"


def resample_separable(stack: SliceStack, grid: Grid, hu_range: HURange, options: Options) -> Planes:
    """Average along y and x within each slice, then along z; yields some planes at a time, HU above air."""
    hu, along_y, along_x = in_plane_bands(stack, grid)
    along_z = footprint_bands(stack.origins_ras_mm[:, 2], grid.centers_mm(2), grid.spacing_mm)
    count, height, width = grid.shape_zyx
    weights, slices = (part.reshape(count, -1) for part in (along_z.data, along_z.indices))
    averaged: dict[int, NDArray[np.float32]] = {}
    for start in range(0, count, PLANES_AT_ONCE):
        part = slice(start, min(start + PLANES_AT_ONCE, count))
        needed = range(int(slices[part].min()), int(slices[part].max()) + 1)
        averaged = {
            k: averaged[k] if k in averaged else plane_average(hu[k], along_y, along_x, hu_range) for k in needed
        }
        rows = np.arange(part.stop - start + 1) * weights.shape[1]
        entries = (weights[part].ravel(), slices[part].ravel() - needed.start, rows)
        means = csr_array(entries, shape=(part.stop - start, len(needed))) @ np.stack(list(averaged.values()))
        yield part, means.reshape(-1, height, width)


def plane_average(
    plane: NDArray[np.int16], along_y: csr_array, along_x: csr_array, hu_range: HURange
) -> NDArray[np.float32]:
    """Return a slice's means over the voxels of a plane, (Y * X,) HU above air."""
    columns_first = np.ascontiguousarray((along_y @ above_air(plane, hu_range).astype(np.float32)).T)
    return np.ascontiguousarray((along_x @ columns_first).T).ravel()


def resample_tilted(stack: SliceStack, grid: Grid, hu_range: HURange, options: Options) -> Planes:
    """Average along x within each slice, then along y and z together over parts of each voxel; HU above air."""
    hu, _, along_x = in_plane_bands(stack, grid, crop_rows=False)
    slices, rows, _ = hu.shape
    averaged = np.empty((slices * rows, grid.shape_zyx[2]), np.float32)
    together = max(ROWS_AT_ONCE // rows, 1)
    columns_first = np.zeros((hu.shape[2], together * rows + SPARE_FLOATS), np.float32)
    for k in range(0, slices, together):
        above = above_air(hu[k : k + together].reshape(-1, hu.shape[2]), hu_range)
        for start in range(0, len(above), ROWS_AT_ONCE):
            part = slice(start, min(start + ROWS_AT_ONCE, len(above)))
            columns_first[:, part] = above[part].T
        averaged[k * rows : k * rows + len(above)] = (along_x @ columns_first)[:, : len(above)].T
    means = TiltedMeans(stack, grid.spacing_mm, options.preview)
    y_mm, z_mm = grid.centers_mm(1), grid.centers_mm(2)
    at_once = PLANES_AT_ONCE * (2 if options.preview else 1)
    for start in range(0, len(z_mm), at_once):
        part = slice(start, min(start + at_once, len(z_mm)))
        planes = np.zeros((part.stop - start, *grid.shape_zyx[1:]), np.float32)
        wanted = np.ones(planes.shape[:2], bool) if options.rows is None else options.rows[part]
        z, y = np.nonzero(wanted)
        planes[wanted] = means.weights(y_mm[y], z_mm[part][z]) @ averaged
        yield part, planes


def resample_oblique(stack: SliceStack, grid: Grid, hu_range: HURange, options: Options) -> Planes:
    """Average over points within each voxel; yields plane after plane of the grid, HU above air."""
    _, rows, columns = stack.hu.shape
    to_index = np.linalg.pinv(np.stack([stack.column_step_ras_mm, stack.row_step_ras_mm], axis=1))  # (2, 3)
    normal, positions = stack.normal_ras, stack.positions_mm
    first = stack.origins_ras_mm @ to_index.T
    values = np.clip(stack.hu, *hu_range).ravel()
    x, y, z = (grid.centers_mm(axis) for axis in range(3))
    offsets = [np.zeros(1) if options.preview else sub_offsets(stack, grid, axis, OBLIQUE_POINTS) for axis in range(3)]
    points = list(itertools.product(*offsets))
    for plane in range(len(z)):
        out = np.zeros((1, *grid.shape_zyx[1:]), np.float32)
        for dx, dy, dz in points:
            height = z[plane] + dz

            def project(axis: Floats, dx: float = dx, dy: float = dy, height: float = height) -> Floats:
                along: Floats = np.add.outer(axis[1] * (y + dy) + axis[2] * height, axis[0] * (x + dx))
                return along

            lower, to_upper, inside = bracket(project(normal), positions)
            column, row = project(to_index[0]), project(to_index[1])
            for k, along in ((lower, 1 - to_upper), (lower + 1, to_upper)):
                i, to_next_i, within_i = bracket_even(column - first[k, 0], columns)
                j, to_next_j, within_j = bracket_even(row - first[k, 1], rows)
                at = (k * rows + j) * columns + i
                near = values[at] * (1 - to_next_i) + values[at + 1] * to_next_i
                far = values[at + columns] * (1 - to_next_i) + values[at + columns + 1] * to_next_i
                mean = near * (1 - to_next_j) + far * to_next_j - hu_range[0]
                out[0] += mean * along * (inside & within_i & within_j)
        out /= len(points)
        yield slice(plane, plane + 1), out


def in_plane_bands(
    stack: SliceStack, grid: Grid, crop_rows: bool = True
) -> tuple[NDArray[np.int16], csr_array, csr_array]:
    """Return the part of the slices that a grid needs, and the weights of its rows and columns in the grid's voxels.

    Rows and columns come in the order in which they lie in memory: reading them backwards takes six times as long.
    Sums are taken in the order of places all the same, so that what is computed doesn't depend on it.

    Returns:
        (K, J, I) HU, (Y, J) and (X, I) sparse weights.
    """
    hu = stack.hu
    found: list[csr_array] = []
    for axis, step in ((1, stack.row_step_ras_mm), (0, stack.column_step_ras_mm)):
        knots = stack.origins_ras_mm[:, axis].mean() + step[axis] * np.arange(stack.hu.shape[2 - axis])
        if axis == 1 and not crop_rows:
            found.append(csr_array(np.zeros((1, 1), np.float32)))
            continue
        bands = footprint_bands(knots, grid.centers_mm(axis), grid.spacing_mm)
        if hu.strides[2 - axis] < 0:
            hu, bands = np.flip(hu, 2 - axis), reversed_columns(bands)
        start, end = int(bands.indices.min()), int(bands.indices.max()) + 1
        hu = hu[:, start:end] if axis == 1 else hu[:, :, start:end]
        shape = (bands.shape[0], end - start)
        found.append(csr_array((bands.data, bands.indices - start, bands.indptr), shape=shape))
    return hu, found[0], found[1]


def sub_offsets(stack: SliceStack, grid: Grid, axis: int, points: int) -> Floats:
    """Return where to sample within a voxel along an axis: `points` times for each row, column or slice crossed there.

    Against the exact mean of a real head, one point each (at least two in all) is off by 0.5 HU on average and 20 HU at
    the worst edge of bone.
    """
    row_mm, column_mm = stack.pixel_mm
    crossed_per_mm = max(
        abs(stack.row_step_ras_mm[axis]) / row_mm**2,
        abs(stack.column_step_ras_mm[axis]) / column_mm**2,
        abs(stack.normal_ras[axis]) / float(np.median(stack.gaps_mm)),
    )
    count = max(int(np.ceil(points * grid.spacing_mm * crossed_per_mm)), FEWEST_POINTS)
    return ((np.arange(count) + 0.5) / count - 0.5) * grid.spacing_mm


def above_air(plane: NDArray[np.int16], hu_range: HURange) -> NDArray[np.uint16]:
    """Return a slice clamped and counted from air, so that air is 0 and weights that sum to less than 1 add air."""
    above = np.clip(plane, *hu_range).view(np.uint16)
    above -= np.uint16(hu_range[0] & 0xFFFF)  # what overflows on the way comes back
    return above
