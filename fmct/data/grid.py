"""The grid that volumes are resampled onto: axis-aligned in RAS, the same spacing on all axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fmct.data.geometry import Vectors


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel centers at `first_ras_mm + spacing_mm * (x, y, z)`; arrays on it are (Z, Y, X), indices grow to S, A, R.

    Attributes:
        first_ras_mm: (3,) center of voxel (0, 0, 0): x to the right, y to the front, z up.
        spacing_mm: distance of neighboring voxels.
        shape_zyx: number of voxels.
    """

    first_ras_mm: Vectors
    spacing_mm: float
    shape_zyx: tuple[int, int, int]

    @classmethod
    def covering(cls, low_ras_mm: Vectors, high_ras_mm: Vectors, spacing_mm: float) -> Grid:
        """Return the smallest grid whose voxels cover a box, centered on it."""
        voxels = np.maximum(np.ceil((high_ras_mm - low_ras_mm) / spacing_mm - 1e-6), 1).astype(int)
        x, y, z = (int(count) for count in voxels)
        return cls.centered((low_ras_mm + high_ras_mm) / 2, spacing_mm, (z, y, x))

    @classmethod
    def centered(cls, center_ras_mm: Vectors, spacing_mm: float, shape_zyx: tuple[int, int, int]) -> Grid:
        """Return the grid of a shape whose middle is at a point."""
        half = (np.array(shape_zyx[::-1]) - 1) / 2 * spacing_mm
        return cls(np.asarray(center_ras_mm) - half, spacing_mm, shape_zyx)

    @property
    def affine_ras(self) -> Vectors:
        """(4, 4) from the indices (x, y, z) to RAS millimeters, as in NIfTI."""
        affine = np.diag([self.spacing_mm, self.spacing_mm, self.spacing_mm, 1.0])
        affine[:3, 3] = self.first_ras_mm
        return affine

    @property
    def bounds_ras_mm(self) -> tuple[Vectors, Vectors]:
        """The lowest and the highest coordinates, voxels taken with their extent."""
        low: Vectors = self.first_ras_mm - self.spacing_mm / 2
        return low, low + self.spacing_mm * np.array(self.shape_zyx[::-1])

    def centers_mm(self, axis: int) -> Vectors:
        """Return the coordinates of the voxel centers along x (0), y (1) or z (2)."""
        centers: Vectors = self.first_ras_mm[axis] + self.spacing_mm * np.arange(self.shape_zyx[2 - axis])
        return centers

    def indices_xyz(self, points_ras_mm: Vectors) -> Vectors:
        """Return the fractional indices (..., 3) in the order (x, y, z) of points (..., 3)."""
        indices: Vectors = (points_ras_mm - self.first_ras_mm) / self.spacing_mm
        return indices
