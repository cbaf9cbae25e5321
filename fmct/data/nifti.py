"""NIfTI files as slice stacks.

The affine is nibabel's: the sform where it has a code, shear included, else the qform. SimpleITK and torchio take the
qform silently, which puts a tilted head up to 45 mm off, and have no way to express shear.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from fmct.data.geometry import FEWEST_SLICES, SliceStack, stack_from_affine
from fmct.data.rejection import RejectCode, ScanError

SUFFIXES = (".nii", ".nii.gz")
SAMPLES = 8
SAMPLE_BYTES = 1 << 16


def is_nifti(path: Path) -> bool:
    """Tell by its name whether a file is a NIfTI."""
    return path.name.lower().endswith(SUFFIXES)


def stem(path: Path) -> str:
    """Return a NIfTI file's name without `.nii` or `.nii.gz`."""
    name = path.name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def content_id(path: Path) -> str:
    """Return 16 hex digits that tell a file by its content, the same wherever it lies and whatever its name.

    Size and `SAMPLES` pieces spread over the file are hashed: quick for large files, and compressed ones end with a
    checksum of all.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in np.linspace(0, max(size - SAMPLE_BYTES, 0), SAMPLES).astype(int):
            file.seek(int(start))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def open_nifti(path: Path) -> Any:
    """Open a NIfTI file without reading its voxels, and check that it can hold a scan.

    Raises:
        ScanError: when it is unreadable, isn't a volume, or its affine is no geometry.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise ScanError(RejectCode.EMPTY, path, "0 bytes")
    try:
        image: Any = nib.load(path)
        shape = tuple(count for axis, count in enumerate(image.shape) if axis < 3 or count != 1)
    except (ImageFileError, OSError, EOFError, zlib.error, ValueError) as error:
        raise ScanError(RejectCode.UNREADABLE, path, f"no NIfTI header ({type(error).__name__})") from error
    if len(shape) != 3 or image.get_data_dtype().kind not in "iuf":
        raise ScanError(RejectCode.SECONDARY, path, f"{image.shape} of {image.get_data_dtype()} is no gray volume")
    if min(shape) < FEWEST_SLICES:
        raise ScanError(RejectCode.TOO_FEW_SLICES, path, f"shape {shape}, at least {FEWEST_SLICES} needed on each axis")
    steps = image.affine[:3, :3]
    lengths = np.linalg.norm(steps, axis=0)
    if not np.isfinite(image.affine).all() or (lengths == 0).any() or abs(np.linalg.det(steps / lengths)) < 0.1:
        raise ScanError(RejectCode.NO_GEOMETRY, path, "the affine is not finite or not invertible")
    if image.header["sform_code"] == 0 and image.header["qform_code"] == 0:
        raise ScanError(RejectCode.NO_GEOMETRY, path, "neither sform nor qform has a code, so orientation is unknown")
    return image


def load_nifti(path: Path) -> SliceStack:
    """Read a NIfTI file.

    Returns:
        The stack, the same one however the voxels are stored.

    Raises:
        ScanError: when it can't be read or has values that aren't finite.
    """
    image = open_nifti(path)
    try:
        values = np.asanyarray(image.dataobj)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ScanError(RejectCode.UNREADABLE, path, f"voxels can't be read ({type(error).__name__})") from error
    return stack_from_affine(to_int16(values.reshape(values.shape[:3]), path), image.affine)


def to_int16(values: NDArray[Any], path: Path) -> NDArray[np.int16]:
    """Round to int16, limiting what doesn't fit (no HU of interest lies out there)."""
    if values.dtype == np.int16:
        return np.asarray(values, np.int16)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        share = 100 * (1 - np.isfinite(values).mean())
        raise ScanError(RejectCode.IMPLAUSIBLE_HU, path, f"{share:.2g} % of values are NaN or infinite")
    rounded: NDArray[np.int16] = np.clip(np.rint(values), -32767, 32767).astype(np.int16)
    return rounded
