"""Slices in coarse pixels, each the mean of what it covers: enough to tell a head, and quick to look through."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from fmct.data.geometry import SliceStack, Vectors

SAMPLES_PER_PIXEL = 6
"""Along each axis; the mean over them keeps the noise of thin slices and sharp kernels from mattering."""
LOWEST_HU, HIGHEST_HU = -1024, 2000
"""Sums of `SAMPLES_PER_PIXEL` of them fit into 16 bits."""
SPARE_PIXELS = 2
"""Around a box: interpolating at its edge takes the next one beyond."""


def coarse_slices(
    stack: SliceStack,
    pixel_mm: float,
    slices_mm: float | None = None,
    box_ras_mm: tuple[Vectors, Vectors] | None = None,
) -> SliceStack:
    """Return the stack in pixels of up to some size.

    Args:
        stack: the scan, or some of its slices.
        pixel_mm: largest side of a pixel, unless the scan's are larger.
        slices_mm: leave out slices where the others stay within this distance; None keeps all.
        box_ras_mm: the lowest and the highest coordinates of what is needed; what lies further off than
            `SPARE_PIXELS` and as many slices is left out. None keeps all.

    Returns:
        Slices at their true places, rounded to whole HU, limited to `LOWEST_HU` and `HIGHEST_HU`.
    """
    row_mm, column_mm = stack.pixel_mm
    rows, columns = (max(int(pixel_mm / step), 1) for step in (row_mm, column_mm))
    apart = 1 if slices_mm is None else max(int(slices_mm / float(stack.gaps_mm.max())), 1)
    apart = min(apart, len(stack.hu) - 1)
    if box_ras_mm is not None:
        stack = part_around(stack, box_ras_mm, (apart, rows, columns))
    shift = (rows - 1) / 2 * stack.row_step_ras_mm + (columns - 1) / 2 * stack.column_step_ras_mm
    return SliceStack(
        pixel_means(stack.hu[::apart], rows, columns),
        stack.origins_ras_mm[::apart] + shift,
        stack.row_step_ras_mm * rows,
        stack.column_step_ras_mm * columns,
    )


def part_around(stack: SliceStack, box_ras_mm: tuple[Vectors, Vectors], blocks: tuple[int, int, int]) -> SliceStack:
    """Return the part of a stack around a box.

    Args:
        stack: the scan.
        box_ras_mm: the lowest and the highest coordinates of the box.
        blocks: how many slices, rows and columns are taken together; the part begins with a whole one.
    """
    corners = np.array(list(itertools.product(*zip(*box_ras_mm, strict=True))))
    of_slices = np.interp(corners @ stack.normal_ras, stack.positions_mm, np.arange(len(stack.hu)))
    in_plane = np.linalg.pinv(np.stack([stack.row_step_ras_mm, stack.column_step_ras_mm], axis=1))
    of_pixels = (corners[:, None] - stack.origins_ras_mm) @ in_plane.T
    places = (of_slices, of_pixels[..., 0], of_pixels[..., 1])
    kept = []
    for place, block, count in zip(places, blocks, stack.hu.shape, strict=True):
        first = (int(np.floor(place.min())) // block - SPARE_PIXELS) * block
        end = (int(np.ceil(place.max())) // block + 1 + SPARE_PIXELS) * block
        kept.append(slice(min(max(first, 0), count - 1), min(max(end, 1), count)))
    slices, rows, columns = kept
    shift = rows.start * stack.row_step_ras_mm + columns.start * stack.column_step_ras_mm
    return SliceStack(
        stack.hu[slices, rows, columns],
        stack.origins_ras_mm[slices] + shift,
        stack.row_step_ras_mm,
        stack.column_step_ras_mm,
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
    clipped = np.empty((height, width), np.int16)
    for k, plane in enumerate(blocks):
        if rows == columns == 1:
            np.clip(plane, LOWEST_HU, HIGHEST_HU, out=means[k])
            continue
        np.clip(plane, LOWEST_HU, HIGHEST_HU, out=clipped)
        lines = clipped[picks[0][0] :: rows]
        for row in picks[0][1:]:
            lines = lines + clipped[row::rows]
        total = lines[:, picks[1][0] :: columns].astype(np.float32)
        for column in picks[1][1:]:
            total += lines[:, column::columns]
        total *= np.float32(1 / (len(picks[0]) * len(picks[1])))
        means[k] = np.rint(total, out=total)
    turned_back: NDArray[np.int16] = np.flip(means, turned)
    return turned_back
