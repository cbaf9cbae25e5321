"""Where a patch sits: the grid of patches, its 3D sine-cosine positions, and the same positions on another grid.

Shapes: N patches of a (Z, Y, X) grid in row-major order, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fmct.console.errors import UsageError

TEMPERATURE = 10_000.0
"""Longest wavelength over 2π, in patches (Vaswani et al. 2017, arXiv 1706.03762, section 3.5)."""


def patch_grid(shape_zyx: tuple[int, int, int], patch_zyx: tuple[int, int, int]) -> tuple[int, int, int]:
    """Count the patches of a volume along each axis.

    Raises:
        UsageError: when the patches don't divide the volume, naming the nearest size that they divide.
    """
    if any(n < p or n % p for n, p in zip(shape_zyx, patch_zyx, strict=True)):
        near = tuple(max(round(n / p), 1) * p for n, p in zip(shape_zyx, patch_zyx, strict=True))
        raise UsageError(
            f"patches of {patch_zyx} voxels don't divide an input of {shape_zyx}",
            "patch_voxels and the input size (z, y, x)",
            f"crop or pad the input to {near}, or choose other patches",
        )
    (z, y, x), (pz, py, px) = shape_zyx, patch_zyx
    return z // pz, y // py, x // px


def sincos_positions(width: int, grid_zyx: tuple[int, int, int]) -> Tensor:
    """Compute fixed sine-cosine positions; a third of the width belongs to each axis, half of that to each function.

    Where 6 doesn't divide the width, up to five numbers at the end are zero: the usual widths 1024 and 1280 stay whole.

    Args:
        width: D, at least 6.
        grid_zyx: patches along each axis.

    Returns:
        (1, N, D) float32 in [-1, 1], patches in row-major order.
    """
    frequencies = TEMPERATURE ** (-torch.arange(width // 6, dtype=torch.float64) / (width // 6))
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid_zyx), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in axes]
    positions_ND = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
    return F.pad(positions_ND, (0, width % 6))[None].float()


def interpolate_positions(
    positions_1ND: Tensor,
    from_grid_zyx: tuple[int, int, int],
    to_grid_zyx: tuple[int, int, int],
) -> Tensor:
    """Resample positions trilinearly (corners not aligned) onto another grid; the same grid returns them untouched.

    Args:
        positions_1ND: (1, N, D) positions of `from_grid_zyx`.
        from_grid_zyx: the grid that they were made for.
        to_grid_zyx: the grid wanted.

    Returns:
        (1, M, D), of the same type, M patches of `to_grid_zyx`; differentiable.
    """
    if from_grid_zyx == to_grid_zyx:
        return positions_1ND
    width = positions_1ND.shape[-1]
    volume_1DZYX = positions_1ND.reshape(1, *from_grid_zyx, width).permute(0, 4, 1, 2, 3)
    resampled_1DZYX = F.interpolate(volume_1DZYX, size=to_grid_zyx, mode="trilinear", align_corners=False)
    return resampled_1DZYX.flatten(2).transpose(1, 2)
