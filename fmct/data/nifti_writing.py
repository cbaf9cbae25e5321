"""Volumes as NIfTI files, for viewers and other programs."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray

from fmct.console.files import write_bytes_atomically
from fmct.data.volume_file import Voxels

MOST_OFF_MM = 0.01
"""In any entry of the affine: a qform holds a rotation as three float32 numbers."""


def write_nifti(voxels: Voxels | NDArray[np.float32], affine: NDArray[np.float64], path: Path) -> None:
    """Write a volume with its true affine, whole or not at all.

    Args:
        voxels: (Z, Y, X), written as (X, Y, Z) of the same type: int16 HU, a float32 map; or (C, Z, Y, X), such as
            float16 windows, written as (X, Y, Z, C) float32, since NIfTI has no float16.
        affine: (4, 4) from the indices (x, y, z) to RAS millimeters. A sheared one, which no qform can say, is in the
            sform alone.
        path: .nii or .nii.gz.
    """
    values = voxels.transpose(2, 1, 0) if voxels.ndim == 3 else voxels.transpose(3, 2, 1, 0).astype(np.float32)
    image = nib.Nifti1Image(values, affine)
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine, code="scanner")
    if not np.allclose(image.get_qform(), image.affine, atol=MOST_OFF_MM):
        image.set_qform(None, code="unknown")
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    write_bytes_atomically(path, igzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
