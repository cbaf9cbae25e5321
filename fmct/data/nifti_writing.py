"""Volumes as NIfTI files, for viewers and other programs."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray

from fmct.console.files import write_bytes_atomically
from fmct.data.volume_file import Voxels


def write_nifti(voxels: Voxels | NDArray[np.float32], affine: NDArray[np.float64], path: Path) -> None:
    """Write a volume with its true affine, whole or not at all.

    Args:
        voxels: (Z, Y, X), written as (X, Y, Z) of the same type: int16 HU, a float32 map; or (C, Z, Y, X), such as
            float16 windows, written as (X, Y, Z, C) float32, since NIfTI has no float16.
        affine: (4, 4) from the indices (x, y, z) to RAS millimeters; of a sheared one the qform has the rotation.
        path: .nii or .nii.gz.
    """
    values = voxels.transpose(2, 1, 0) if voxels.ndim == 3 else voxels.transpose(3, 2, 1, 0).astype(np.float32)
    image = nib.Nifti1Image(values, affine)
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    write_bytes_atomically(path, igzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
