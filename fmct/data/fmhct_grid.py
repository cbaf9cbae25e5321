"""The grid of 1 mm that MONAI's `Spacing` would resample a scan onto, and where its points lie in the scan.

`Spacing` keeps the scan's own axes: the new ones are orthogonal, along the scan's first axis and in the plane of its
first two, and where a scan is turned, so is its grid. So an index of the scan follows from the same index of the grid
and, only where slices are sheared, from later ones.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPACING_MM = 1.0
TOLERANCE = 1e-3
"""An axis whose spacing is as close to 1 mm stays as it is, and so does a scan whose affine is as close to the new."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SpacingGrid:
    """Where to resample a scan.

    Attributes:
        shape_xyz: points along x, y and z, the scan's own axes.
        affine_ras: (4, 4) from indices of points to RAS millimeters.
        to_scan: (4, 4) from indices of points to indices of the scan, upper triangular.
    """

    shape_xyz: tuple[int, int, int]
    affine_ras: Floats
    to_scan: Floats

    @classmethod
    def of(cls, shape_xyz: tuple[int, ...], affine_ras: Floats) -> SpacingGrid:
        """Return the grid of a scan.

        Args:
            shape_xyz: the scan's, its axes closest to R, A and S.
            affine_ras: (4, 4) from its indices to RAS millimeters.
        """
        steps = affine_ras[:3, :3]
        lengths = np.sqrt((steps * steps).sum(axis=0))
        lengths = np.where(np.abs(lengths - SPACING_MM) <= TOLERANCE, lengths, SPACING_MM)
        shear = np.linalg.cholesky(steps.T @ steps).T
        affine = np.eye(4)
        affine[:3, :3] = steps @ np.linalg.inv(shear) * lengths
        shape, affine[:3, 3] = shape_and_origin(shape_xyz, affine_ras, affine)
        to_scan = np.linalg.solve(affine_ras, affine)
        same = np.allclose(affine_ras, affine, atol=TOLERANCE) or np.allclose(to_scan, np.eye(4), atol=TOLERANCE)
        if same and shape == tuple(shape_xyz):
            return cls(shape, affine_ras, np.eye(4))
        return cls(shape, affine, np.triu(to_scan))


def shape_and_origin(
    shape_xyz: tuple[int, ...], old_affine: Floats, new_affine: Floats
) -> tuple[tuple[int, int, int], Floats]:
    """Return how many points span the scan's corners, and where the first lies, RAS millimeters.

    That is the corner that is lowest along all new axes, or, where shear leaves none, a place such that scan and grid
    have one center (counted from the outer edge of the first voxel, as MONAI does).
    """
    corners = np.array([(*corner, 1.0) for corner in itertools.product(*((0.0, n - 1.0) for n in shape_xyz))]).T
    inside = np.linalg.solve(new_affine, old_affine) @ corners
    x, y, z = (int(count) for count in np.round(np.ptp(inside[:3], axis=1) + 1.0))
    at_mm = (old_affine @ corners)[:3]
    for corner in range(8):
        if np.allclose((inside - inside[:, corner : corner + 1]).min(axis=1), 0.0):
            return (x, y, z), at_mm[:, corner]
    middle = old_affine[:3, :3] @ (np.array(shape_xyz) / 2.0) + old_affine[:3, 3]
    return (x, y, z), middle - new_affine[:3, :3] @ (np.array([x, y, z]) / 2.0)
