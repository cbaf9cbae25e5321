"""What the ways of resampling have in common: clamped slices, bands of rows and columns, volumes made in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fmct.data.footprint import footprint_bands, reversed_columns
from fmct.data.geometry import SliceStack
from fmct.data.grid import Grid

PLANES_AT_ONCE = 16

HURange = tuple[int, int]
Place = slice | tuple[NDArray[np.intp], NDArray[np.intp]]
Pieces = Iterator[tuple[Place, NDArray[np.float32]]]
"""Of a volume: where they are in it, and their HU above air."""


@dataclass(frozen=True, eq=False)
class Options:
    """What may be left out, as `resample` has it."""

    preview: bool
    rows: NDArray[np.bool_] | None


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


def above_air(plane: NDArray[np.int16], hu_range: HURange) -> NDArray[np.uint16]:
    """Return a slice clamped and counted from air, so that air is 0 and weights that sum to less than 1 add air."""
    above = np.clip(plane, *hu_range).view(np.uint16)
    above -= np.uint16(hu_range[0] & 0xFFFF)  # what overflows on the way comes back
    return above
