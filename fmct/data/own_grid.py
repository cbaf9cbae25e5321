"""The voxels of a scan as it was measured, as far as an affine can say where they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmct.data.geometry import SliceStack
from fmct.data.nifti import open_nifti
from fmct.data.volume_file import Volume

EVEN_MM = 0.1
"""Slices this far from where even ones would be still count as even: positions in headers are rounded."""


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """Voxels of any affine, sheared ones too.

    Attributes:
        affine_ras: (4, 4) from the indices (x, y, z) to RAS millimeters, as in NIfTI.
        shape_zyx: number of voxels; arrays on the grid are (Z, Y, X).
    """

    affine_ras: NDArray[np.float64]
    shape_zyx: tuple[int, int, int]

    @classmethod
    def of_volume(cls, volume: Volume) -> VoxelGrid:
        """Return the grid of a preprocessed volume."""
        z, y, x = volume.voxels.shape[-3:]
        return cls(volume.affine, (z, y, x))


def grid_of_stack(stack: SliceStack) -> VoxelGrid | None:
    """Return the grid of a stack's pixels, sheared where the gantry was tilted; None where slices are uneven."""
    origins = stack.origins_ras_mm
    slice_step = (origins[-1] - origins[0]) / (len(origins) - 1)
    even = origins[0] + np.arange(len(origins))[:, None] * slice_step
    if np.linalg.norm(origins - even, axis=1).max() > EVEN_MM:
        return None
    affine = np.eye(4)
    affine[:3] = np.stack([stack.column_step_ras_mm, stack.row_step_ras_mm, slice_step, origins[0]], axis=1)
    slices, rows, columns = stack.hu.shape
    return VoxelGrid(affine, (slices, rows, columns))


def grid_of_file(path: Path) -> VoxelGrid:
    """Return the grid of a NIfTI file, with its axes as the file has them.

    Raises:
        ScanError: when the file can't hold a scan.
    """
    image = open_nifti(path)
    x, y, z = image.shape[:3]
    return VoxelGrid(image.affine, (z, y, x))
