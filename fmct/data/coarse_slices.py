"""Slices in coarse pixels, each the mean of what it covers: enough to tell a head, and quick to look through."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fmct.data.geometry import SliceStack

SAMPLES_PER_PIXEL = 6
"""Along each axis; the mean over them keeps the noise of thin slices and sharp kernels from mattering."""
LOWEST_HU, HIGHEST_HU = -1024, 2000
"""Sums of `SAMPLES_PER_PIXEL` of them fit into 16 bits."""


def coarse_slices(stack: SliceStack, pixel_mm: float, slices_mm: float | None = None) -> SliceStack:
    """Return the stack in pixels of up to some size.

    Args:
        stack: the scan, or some of its slices.
        pixel_mm: largest side of a pixel, unless the scan's are larger.
        slices_mm: leave out slices where the others stay within this distance; None keeps all.

    Returns:
        Slices at their true places, rounded to whole HU, limited to `LOWEST_HU` and `HIGHEST_HU`.
    """
    row_mm, column_mm = stack.pixel_mm
    rows, columns = (max(int(pixel_mm / step), 1) for step in (row_mm, column_mm))
    apart = 1 if slices_mm is None else max(int(slices_mm / float(stack.gaps_mm.max())), 1)
    apart = min(apart, len(stack.hu) - 1)
    shift = (rows - 1) / 2 * stack.row_step_ras_mm + (columns - 1) / 2 * stack.column_step_ras_mm
    return SliceStack(
        pixel_means(stack.hu[::apart], rows, columns),
        stack.origins_ras_mm[::apart] + shift,
        stack.row_step_ras_mm * rows,
        stack.column_step_ras_mm * columns,
    )


def pixel_means(hu: NDArray[np.int16], rows: int, columns: int) -> NDArray[np.int16]:
    """Return means over blocks of pixels (of many, over some spread evenly); what doesn't fill a block is left out.

    Args:
        hu: (K, J, I).
        rows: height of a block.
        columns: width of a block.

    Returns:
        (K, J // rows, I // columns) int16.
    """
    height, width = hu.shape[1] // rows * rows, hu.shape[2] // columns * columns
    blocks = hu[:, :height, :width]
    turned = tuple(axis for axis in (1, 2) if blocks.strides[axis] < 0)  # memory is read forwards
    blocks = np.flip(blocks, turned)
    picks = [range(0, count, -(-count // SAMPLES_PER_PIXEL)) for count in (rows, columns)]
    means = np.empty((len(hu), height // rows, width // columns), np.int16)
    if not means.size:
        return means
    for k, plane in enumerate(blocks):
        if rows == columns == 1:
            means[k] = np.clip(plane, LOWEST_HU, HIGHEST_HU)
            continue
        lines = np.clip(plane[picks[0][0] :: rows], LOWEST_HU, HIGHEST_HU)
        for row in picks[0][1:]:
            lines += np.clip(plane[row::rows], LOWEST_HU, HIGHEST_HU)
        total = lines[:, picks[1][0] :: columns].astype(np.float32)
        for column in picks[1][1:]:
            total += lines[:, column::columns]
        total *= np.float32(1 / (len(picks[0]) * len(picks[1])))
        means[k] = np.rint(total, out=total)
    turned_back: NDArray[np.int16] = np.flip(means, turned)
    return turned_back
