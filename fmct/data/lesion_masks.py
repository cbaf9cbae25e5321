"""Masks of lesions on disk: FOLDER/<the scan's path without its suffix>/NAME.nii.gz, one per finding.

That is how `fmct phantom --masks` writes them; masks drawn by people can be laid out the same way.
"""

from __future__ import annotations

from pathlib import Path, PurePath

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from fmct.console.errors import UsageError
from fmct.data.nifti import is_nifti, stem
from fmct.data.own_grid import VoxelGrid

SUFFIX = ".nii.gz"


def mask_folder(folder: Path, scan_path: str | PurePath) -> Path:
    """Return where the masks of a scan are.

    Args:
        folder: of all masks.
        scan_path: of the scan, relative to the cohort.
    """
    path = PurePath(scan_path)
    return folder / path.parent / (stem(Path(path)) if is_nifti(Path(path)) else path.name)


def masks_of(folder: Path, scan_path: str) -> dict[str, Path]:
    """Return a scan's masks by the name of their finding, {} where there are none.

    Args:
        folder: of all masks.
        scan_path: as a manifest has it, or on disk: so much of its end counts as leads to a folder of masks.
    """
    parts = PurePath(scan_path).parts
    for first in range(len(parts)):
        inside = mask_folder(folder, PurePath(*parts[first:])) if not PurePath(parts[first]).is_absolute() else None
        if inside is not None and inside.is_dir():
            return {path.name.removesuffix(SUFFIX): path for path in sorted(inside.glob(f"*{SUFFIX}"))}
    return {}


def mask_on(path: Path, grid: VoxelGrid) -> NDArray[np.bool_]:
    """Mark the voxels of a grid in which there is the center of any voxel of a mask: none, however small, is lost.

    Args:
        path: a NIfTI file, not 0 within the lesion.
        grid: where it is wanted.

    Returns:
        (Z, Y, X) bool.

    Raises:
        UsageError: when the file is no mask.
    """
    try:
        image = nib.load(path)
        inside = np.argwhere(np.asanyarray(image.dataobj) > 0)
    except (OSError, ValueError, EOFError, ImageFileError) as error:
        raise UsageError(f"not a readable mask ({error})", path, "write it anew, or remove it") from error
    if inside.shape[1] != 3:
        raise UsageError(f"a mask has three axes, not {inside.shape[1]}", path, "write one file per lesion")
    to_grid = np.linalg.inv(grid.affine_ras) @ image.affine
    places = np.rint(inside @ to_grid[:3, :3].T + to_grid[:3, 3]).astype(int)[:, ::-1]
    places = places[((places >= 0) & (places < grid.shape_zyx)).all(1)]
    marked = np.zeros(grid.shape_zyx, bool)
    marked[tuple(places.T)] = True
    return marked
