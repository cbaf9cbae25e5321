"""Resampling of slices that are turned about x: along x within each, then along y and z together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fmct.data.geometry import SliceStack
from fmct.data.grid import Grid
from fmct.data.resampling_pieces import PLANES_AT_ONCE, HURange, Options, Pieces, Place, above_air, in_plane_bands
from fmct.data.tilted_means import TiltedMeans

ROWS_AT_ONCE = 256
SPARE_FLOATS = 16
"""At the end of rows that are read across: as many as 512 by themselves would all share a few lines of the cache."""


def resample_tilted(stack: SliceStack, grid: Grid, hu_range: HURange, options: Options) -> Pieces:
    """Average along x within each slice, then along y and z together over parts of each voxel; HU above air."""
    pieces: Iterable[tuple[Place, csr_array]] = weights_of_pieces(stack, grid, options)
    needed = np.ones(stack.hu.shape[:2], bool)
    if options.rows is not None:
        pieces, needed = list(pieces), np.zeros_like(needed)
        for _, weights in pieces:
            needed.reshape(-1)[weights.indices] = True
    averaged = averages_along_x(stack, grid, hu_range, needed)
    for place, weights in pieces:
        above = weights @ averaged
        yield place, above.reshape(-1, *grid.shape_zyx[1:]) if isinstance(place, slice) else above


def weights_of_pieces(stack: SliceStack, grid: Grid, options: Options) -> Iterator[tuple[Place, csr_array]]:
    """Yield some planes at a time, or what is wanted of them, and the weights of rows of slices in their voxels."""
    means = TiltedMeans(stack, grid.spacing_mm, options.preview)
    y_mm, z_mm = grid.centers_mm(1), grid.centers_mm(2)
    at_once = PLANES_AT_ONCE * (4 if options.preview else 1)
    for start in range(0, len(z_mm), at_once):
        part = slice(start, min(start + at_once, len(z_mm)))
        if options.rows is None:
            yield part, means.weights(np.tile(y_mm, part.stop - start), np.repeat(z_mm[part], len(y_mm)))
            continue
        z, y = np.nonzero(options.rows[part])
        if len(z):
            yield (z + start, y), means.weights(y_mm[y], z_mm[part][z])


def averages_along_x(
    stack: SliceStack, grid: Grid, hu_range: HURange, needed: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the means of rows of slices over the voxels of a line.

    Args:
        stack: its slices run along x.
        grid: whose voxels.
        hu_range: values are clamped to it.
        needed: (K, J) which rows matter; others may be left out.

    Returns:
        (K * J, X) HU above air.
    """
    hu, _, along_x = in_plane_bands(stack, grid, crop_rows=False)
    slices, rows, columns = hu.shape
    averaged = np.zeros((slices * rows, grid.shape_zyx[2]), np.float32)
    columns_first = np.zeros((columns, max(rows, ROWS_AT_ONCE) + SPARE_FLOATS), np.float32)
    for k in range(0, slices, together := max(ROWS_AT_ONCE // rows, 1)):
        places = np.flatnonzero(needed[k : k + together])
        if not len(places):
            continue
        first, end = int(places[0]), int(places[-1]) + 1
        above = above_air(hu[k : k + together].reshape(-1, columns)[first:end], hu_range)
        for start in range(0, len(above), ROWS_AT_ONCE):
            part = slice(start, min(start + ROWS_AT_ONCE, len(above)))
            columns_first[:, part] = above[part].T
        averaged[k * rows + first : k * rows + end] = (along_x @ columns_first)[:, : len(above)].T
    return averaged
