"""Gaussian smoothing as matrix products: several times faster than a grouped convolution, above all on a CPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def blur(views: Tensor, sigma_voxels: Tensor) -> Tensor:
    """Smooth each scan by its own Gaussian, one axis at a time.

    Args:
        views: (B, C, Z, Y, X) float32.
        sigma_voxels: (B,) standard deviations, on the host; 0 leaves a scan as it is.

    Returns:
        (B, C, Z, Y, X) float32; edges are replicated.
    """
    B, C, Z, Y, X = views.shape
    along_z, along_y, along_x = (gaussian_matrices(n, sigma_voxels).to(views, non_blocking=True) for n in (Z, Y, X))
    views = views @ along_x.mT.view(B, 1, 1, X, X)
    views = along_y.view(B, 1, 1, Y, Y) @ views
    return (along_z.view(B, 1, Z, Z) @ views.reshape(B, C, Z, Y * X)).view(B, C, Z, Y, X)


def gaussian_matrices(n: int, sigma_voxels: Tensor) -> Tensor:
    """Return matrices (B, n, n) that smooth a line of n voxels, the voxels at its ends repeated outwards."""
    radius = gaussian_radius(float(sigma_voxels.max()))
    offsets = torch.arange(-radius, radius + 1)
    sigma = sigma_voxels.float().clamp(min=1e-3).view(-1, 1)  # of 0, to a matrix that leaves all as it is
    kernels = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernels = kernels / kernels.sum(1, keepdim=True)
    columns = (torch.arange(n).view(n, 1) + offsets).clamp(0, n - 1)
    B = len(sigma_voxels)
    matrices = torch.zeros(B, n, n)
    return matrices.scatter_add_(2, columns.expand(B, -1, -1), kernels.unsqueeze(1).expand(-1, n, -1))


def gaussian_radius(sigma_voxels: float) -> int:
    """Return how many voxels to each side a Gaussian takes in: three standard deviations, at least one voxel."""
    return max(1, math.ceil(3 * sigma_voxels))
