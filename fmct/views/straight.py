"""Views along the volume's axes: crop, scale, left-right flip and smoothing as one matrix per axis.

Each voxel of a view is a weighted mean along each axis: linear interpolation where the view is finer than the volume,
a triangle as wide as two of its voxels where it is coarser (what `torch.nn.functional.interpolate(antialias=True)` and
Pillow do), so that nothing is skipped. Products are in float32 whatever the trainer's precision: in bfloat16, which has
8 bits, a HU beside bone would be off by more than a gray level of the brain window.

B scans, C channels, Z, Y, X voxels, V voxels of a view.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fmct.views.crops import Crop
from fmct.views.smoothing import gaussian_matrices, gaussian_radius

BLOCK = 16
"""Rows of a matrix that are multiplied at once on a CPU, with those of its columns that aren't zero."""


def sample_straight(
    volumes: Tensor, crop: Crop, center_zyx: Tensor, outside: float, blur_voxels: Tensor, into: Tensor
) -> None:
    """Sample views of scans that aren't turned.

    Args:
        volumes: (B, C, Z, Y, X) int16 or float, cubic.
        crop: what was drawn; rotations are left out of account.
        center_zyx: (B, 3) from `Crop.center_zyx`, on the volumes' device.
        outside: what lies outside the volume.
        blur_voxels: (B,) standard deviations of a Gaussian over the view, in its voxels, on the host; 0: none.
        into: (B, C, V, V, V) float32, is filled.
    """
    side, voxels = volumes.shape[-1], into.shape[-1]
    step = crop.share * (side / voxels)  # from voxel to voxel of a view, in voxels of the volume
    at = positions(crop, center_zyx, side, voxels)
    matrices = triangles(at, step.clamp(min=1).to(at, non_blocking=True), side)
    if bool((blur_voxels > 0).any()):
        matrices = gaussian_matrices(voxels, blur_voxels).to(at, non_blocking=True).unsqueeze(1) @ matrices
    with exact_products():
        if volumes.device.type == "cpu":
            radius = [gaussian_radius(sigma) if sigma else 0 for sigma in blur_voxels.tolist()]
            for row, (apart, reach) in enumerate(zip(step.tolist(), radius, strict=True)):
                blocks = columns_of_blocks(at[row], max(apart, 1.0) + reach * apart, side)
                for channel in range(volumes.shape[1]):
                    multiply_blocks(volumes[row, channel], matrices[row], blocks, outside, into[row, channel])
        else:
            multiply(volumes, matrices, outside, into)
    into.add_(outside)


def positions(crop: Crop, center_zyx: Tensor, side: int, voxels: int) -> Tensor:
    """Return where the voxels of a view lie in the volume, in its voxels: (B, 3, V) along z, y, x."""
    line = (2 * torch.arange(voxels, dtype=torch.float64) + 1) / voxels - 1
    from_center = crop.share.view(-1, 1, 1) * line.expand(1, 3, -1)
    from_center[:, 2] *= torch.where(crop.flip, -1.0, 1.0).unsqueeze(1)
    return (center_zyx.unsqueeze(2) + from_center.to(center_zyx, non_blocking=True) + 1) * (side / 2) - 0.5


def triangles(at: Tensor, half_width: Tensor, side: int) -> Tensor:
    """Return matrices (B, 3, V, side) whose rows are triangles around positions.

    Args:
        at: (B, 3, V) positions, in voxels.
        half_width: (B,) from a triangle's top to its foot, in voxels, at least 1.
        side: voxels of the volume.

    Returns:
        Rows that sum to 1, over the voxels there are, where the position lies in the volume, and to 0 where it doesn't.
    """
    away = (at.unsqueeze(3) - torch.arange(side, device=at.device)).abs_()
    weights = (1 - away / half_width.view(-1, 1, 1, 1)).clamp_(min=0)
    inside = (at >= -0.5) & (at <= side - 0.5)
    return weights * (inside / weights.sum(3).clamp(min=0.25)).unsqueeze(3)


def columns_of_blocks(at: Tensor, reach: float, side: int) -> list[list[tuple[int, int]]]:
    """Return for each axis and block of rows of a matrix, which of its columns aren't zero: from, to.

    Args:
        at: (3, V) positions of one scan's view, on the host.
        reach: how far around them a row isn't zero.
        side: number of columns.
    """
    blocks = torch.split(at, BLOCK, dim=1)
    low = torch.stack([block.amin(1) for block in blocks], 1).sub(reach).floor().clamp(0, side)
    high = torch.stack([block.amax(1) for block in blocks], 1).add(reach).ceil().add(1).clamp(0, side)
    return [
        [(int(a), int(b)) for a, b in zip(lows, highs, strict=True)]
        for lows, highs in zip(low.tolist(), high.tolist(), strict=True)
    ]


def multiply_blocks(
    volume: Tensor, matrices: Tensor, blocks: list[list[tuple[int, int]]], outside: float, into: Tensor
) -> None:
    """Multiply one volume, of which only what the view shows is read, by blocks of three banded matrices.

    Args:
        volume: (Z, Y, X) int16 or float.
        matrices: (3, V, side) along z, y, x.
        blocks: their columns that aren't zero, from `columns_of_blocks`.
        outside: is taken off the volume first.
        into: (V, V, V) float32, is filled.
    """
    (y0, y1), (x0, x1) = ((min(a for a, _ in axis), max(b for _, b in axis)) for axis in blocks[1:])
    V = into.shape[-1]
    starts = range(0, V, BLOCK)
    for first, (a, b) in zip(starts, blocks[0], strict=True):  # all that a block needs stays in the cache
        shown = volume[a:b, y0:y1, x0:x1].float() - outside
        along_z = (matrices[0, first : first + BLOCK, a:b] @ shown.flatten(1)).view(-1, y1 - y0, x1 - x0)
        along_y = into.new_empty(len(along_z), V, x1 - x0)
        for rows, (c, d) in zip(starts, blocks[1], strict=True):
            matrix = matrices[1, rows : rows + BLOCK, c:d].expand(len(along_z), -1, -1)
            torch.bmm(matrix, along_z[:, c - y0 : d - y0], out=along_y[:, rows : rows + BLOCK])
        lines, filled = along_y.flatten(0, 1), into[first : first + BLOCK].flatten(0, 1)
        for rows, (c, d) in zip(starts, blocks[2], strict=True):
            matrix = matrices[2, rows : rows + BLOCK, c:d].mT
            torch.mm(lines[:, c - x0 : d - x0], matrix, out=filled[:, rows : rows + BLOCK])


def multiply(volumes: Tensor, matrices: Tensor, outside: float, into: Tensor) -> None:
    """Multiply volumes (B, C, Z, Y, X) by whole matrices (B, 3, V, side): the same in few large steps, for GPUs."""
    along_z, along_y, along_x = matrices.unbind(1)
    views = torch.einsum("bvz,bczyx->bcvyx", along_z, volumes.float() - outside)
    views = torch.einsum("bvy,bczyx->bczvx", along_y, views)
    into.copy_(torch.einsum("bvx,bczyx->bczyv", along_x, views))


@contextmanager
def exact_products() -> Iterator[None]:
    """Multiply float32 as float32, whatever `torch.set_float32_matmul_precision` allows elsewhere."""
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
