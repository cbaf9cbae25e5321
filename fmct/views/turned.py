"""Views that are turned by small angles: crop, scale, rotation and left-right flip in one trilinear interpolation.

B scans, C channels, Z, Y, X voxels, V voxels of a view. Volumes are RAS: x grows to the patient's right, y to anterior,
z to superior.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fmct.views.crops import Crop
from fmct.views.smoothing import blur


def affine(center_zyx: Tensor, crop: Crop) -> Tensor:
    """Build the maps from a view's coordinates to the volume's, both running from -1 to 1.

    Args:
        center_zyx: (B, 3) where the view's center lies in the volume.
        crop: what was drawn.

    Returns:
        (B, 3, 4) float32, in (x, y, z) order as `torch.nn.functional.affine_grid` wants it, on the centers' device.
    """
    angle_z, angle_y, angle_x = (crop.rotation_deg_zyx * (math.pi / 180)).unbind(1)
    one, zero = torch.ones_like(angle_z), torch.zeros_like(angle_z)

    def matrix(*rows: list[Tensor]) -> Tensor:
        return torch.stack([torch.stack(row, -1) for row in rows], -2)

    cos, sin = torch.cos(angle_z), torch.sin(angle_z)
    about_z = matrix([cos, -sin, zero], [sin, cos, zero], [zero, zero, one])
    cos, sin = torch.cos(angle_y), torch.sin(angle_y)
    about_y = matrix([cos, zero, sin], [zero, one, zero], [-sin, zero, cos])
    cos, sin = torch.cos(angle_x), torch.sin(angle_x)
    about_x = matrix([one, zero, zero], [zero, cos, -sin], [zero, sin, cos])
    mirror = torch.diag_embed(torch.stack([torch.where(crop.flip, -1.0, 1.0), one, one], 1))
    linear = about_z @ about_y @ about_x @ mirror * crop.share.view(-1, 1, 1)
    return torch.cat([linear.to(center_zyx, non_blocking=True), center_zyx.flip(1).unsqueeze(2)], 2).float()


def sample_turned(
    volumes: Tensor, crop: Crop, center_zyx: Tensor, outside: float, blur_voxels: Tensor, into: Tensor
) -> None:
    """Sample views by trilinear interpolation.

    Where a view is at least twice as coarse as the volume, the volume is averaged first, so that no voxel is skipped.

    Args:
        volumes: (B, C, Z, Y, X) int16 or float, cubic.
        crop: what was drawn.
        center_zyx: (B, 3) from `Crop.center_zyx`, on the volumes' device.
        outside: what lies outside the volume.
        blur_voxels: (B,) standard deviations of a Gaussian over the view, in its voxels, on the host; 0: none.
        into: (B, C, V, V, V) float32, is filled.
    """
    side, voxels = volumes.shape[-1], into.shape[-1]
    factors = [averaging_factor(side, share * side / voxels) for share in crop.share.tolist()]
    theta = affine(center_zyx, crop)
    for factor in set(factors):
        rows = torch.tensor([row for row, its in enumerate(factors) if its == factor])
        everyone = len(rows) == len(factors)
        here = rows.to(volumes.device, non_blocking=True)
        some, maps = (volumes, theta) if everyone else (volumes[here], theta[here])
        views = sample_averaged(some.float() - outside, maps, voxels, factor)
        if bool((blur_voxels[rows] > 0).any()):
            views = blur(views, blur_voxels[rows])
        views.add_(outside)
        into.copy_(views) if everyone else into.index_copy_(0, here, views)


def averaging_factor(side: int, voxels_per_voxel: float) -> int:
    """Return the largest whole number of voxels to average that divides the side and is at most the ratio given."""
    return max(f for f in range(1, max(1, int(voxels_per_voxel + 1e-3)) + 1) if side % f == 0)


def sample_averaged(above_outside: Tensor, theta: Tensor, voxels: int, factor: int) -> Tensor:
    """Average blocks of `factor`³ voxels, then sample: (B, C, Z, Y, X) -> (B, C, V, V, V)."""
    if factor > 1:
        above_outside = F.avg_pool3d(above_outside, factor)
    grid = F.affine_grid(theta, [len(theta), 1, voxels, voxels, voxels], align_corners=False)
    return F.grid_sample(above_outside, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
