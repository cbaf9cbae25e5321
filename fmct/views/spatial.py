"""Sampling a batch of volumes through affine maps: crop, scale, rotation and left-right flip in one interpolation.

B scans, Z, Y, X voxels. Volumes are RAS: x grows to the patient's right, y to anterior, z to superior.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

AIR_HU = -1024.0


def affine(center_zyx: Tensor, share: Tensor, rotation_deg_zyx: Tensor, flip: Tensor) -> Tensor:
    """Build the maps from a view's coordinates to the volume's, both running from -1 to 1.

    Args:
        center_zyx: (B, 3) where the view's center lies in the volume.
        share: (B,) side of the view as a share of the volume's side.
        rotation_deg_zyx: (B, 3) rotations about the z, y and x axes, degrees.
        flip: (B,) bool, mirrored left-right.

    Returns:
        (B, 3, 4) float32, in (x, y, z) order as `torch.nn.functional.affine_grid` wants it.
    """
    angle_z, angle_y, angle_x = (rotation_deg_zyx * (math.pi / 180)).unbind(1)
    one, zero = torch.ones_like(share), torch.zeros_like(share)

    def matrix(*rows: list[Tensor]) -> Tensor:
        return torch.stack([torch.stack(row, -1) for row in rows], -2)

    cos, sin = torch.cos(angle_z), torch.sin(angle_z)
    about_z = matrix([cos, -sin, zero], [sin, cos, zero], [zero, zero, one])
    cos, sin = torch.cos(angle_y), torch.sin(angle_y)
    about_y = matrix([cos, zero, sin], [zero, one, zero], [-sin, zero, cos])
    cos, sin = torch.cos(angle_x), torch.sin(angle_x)
    about_x = matrix([one, zero, zero], [zero, cos, -sin], [zero, sin, cos])
    mirror = torch.diag_embed(torch.stack([torch.where(flip, -1.0, 1.0), one, one], 1))
    linear = about_z @ about_y @ about_x @ mirror * share.view(-1, 1, 1)
    return torch.cat([linear, center_zyx.flip(1).unsqueeze(2)], 2).float()


def identity(batch: int) -> Tensor:
    """Return maps (B, 3, 4) that show the whole volume as it is."""
    return torch.eye(3, 4).repeat(batch, 1, 1)


def sample(volumes: Tensor, theta: Tensor, voxels: int, outside: float = AIR_HU) -> Tensor:
    """Sample views by trilinear interpolation.

    Where a view is at least twice as coarse as the volume, the volume is averaged first, so that no voxel is skipped.

    Args:
        volumes: (B, C, Z, Y, X) int16 or float, Hounsfield units or windows, cubic.
        theta: (B, 3, 4) from `affine` or `identity`.
        voxels: side of the views.
        outside: what lies outside the volume: air.

    Returns:
        (B, C, voxels, voxels, voxels) float32, in the volumes' units.
    """
    side = volumes.shape[-1]
    voxels_per_voxel = (theta[:, :, :3].norm(dim=1).amin(1) * side / voxels).tolist()
    factors = [averaging_factor(side, ratio) for ratio in voxels_per_voxel]
    above_air = volumes.float() - outside
    theta = theta.to(volumes.device)
    if len(set(factors)) == 1:
        return sample_averaged(above_air, theta, voxels, factors[0]) + outside
    views = above_air.new_empty(*volumes.shape[:2], voxels, voxels, voxels)
    for factor in set(factors):
        rows = torch.tensor([f == factor for f in factors], device=volumes.device)
        views[rows] = sample_averaged(above_air[rows], theta[rows], voxels, factor)
    return views + outside


def averaging_factor(side: int, voxels_per_voxel: float) -> int:
    """Return the largest whole number of voxels to average that divides the side and is at most the ratio given."""
    return max(f for f in range(1, max(1, int(voxels_per_voxel + 1e-3)) + 1) if side % f == 0)


def sample_averaged(above_air: Tensor, theta: Tensor, voxels: int, factor: int) -> Tensor:
    """Average blocks of `factor`³ voxels, then sample: (B, C, Z, Y, X) -> (B, C, voxels, voxels, voxels)."""
    if factor > 1:
        above_air = F.avg_pool3d(above_air, factor)
    grid = F.affine_grid(theta, [len(theta), 1, voxels, voxels, voxels], align_corners=False)
    return F.grid_sample(above_air, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
