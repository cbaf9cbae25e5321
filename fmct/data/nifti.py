"""NIfTI files as slice stacks. What a file claims is checked in `nifti_header`.

The affine is nibabel's: the sform where it has a code, shear included, else the qform. SimpleITK and torchio take the
qform silently, which puts a tilted head up to 45 mm off, and have no way to express shear.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip, igzip_lib
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from fmct.data.geometry import FEWEST_SLICES, SliceStack, stack_from_affine
from fmct.data.nifti_header import NiftiFile, read_nifti_header
from fmct.data.rejection import RejectCode, ScanError

SUFFIXES = (".nii", ".nii.gz")
MOST_SURPLUS_BYTES = 1 << 20
"""Some writers pad; more behind the voxels isn't a NIfTI file's."""
SHORTEST_STEP_MM, FARTHEST_MM = 1e-3, 1e5
"""No scanner resolves less, and none is larger; beyond, positions of slices can't be told apart."""
INFLATING_FAILS: tuple[Any, ...] = (OSError, EOFError, igzip_lib.IsalError)
"""What reading can raise: a file that ends early, a wrong checksum (BadGzipFile is an OSError), broken Deflate."""
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


def open_nifti(path: Path) -> NiftiFile:
    """Open a NIfTI file without reading its voxels, and check that it can hold a scan.

    Raises:
        ScanError: when it is unreadable or cut short, of absurd size, no volume, or its affine is no geometry.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise ScanError(RejectCode.EMPTY, path, "0 bytes")
    try:
        file = read_nifti_header(path)
    except OSError as error:
        raise ScanError(RejectCode.UNREADABLE, path, f"can't be read ({type(error).__name__})") from error
    if min(file.shape) < FEWEST_SLICES:
        detail = f"shape {file.shape}, at least {FEWEST_SLICES} needed on each axis"
        raise ScanError(RejectCode.TOO_FEW_SLICES, path, detail)
    steps = file.affine[:3, :3]
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(steps, axis=0)
        volume = abs(np.linalg.det(steps / lengths)) if np.isfinite(lengths).all() else math.nan
    if not np.isfinite(file.affine).all() or (lengths == 0).any() or not volume >= 0.1:
        raise ScanError(RejectCode.NO_GEOMETRY, path, "the affine is not finite or not invertible")
    farthest_mm = float(np.abs(file.affine[:3]).max())
    if lengths.min() < SHORTEST_STEP_MM or farthest_mm > FARTHEST_MM:
        detail = f"the affine has steps of {lengths.min():.3g} mm and reaches {farthest_mm:.3g} mm"
        raise ScanError(RejectCode.NO_GEOMETRY, path, detail)
    if file.header["sform_code"] == 0 and file.header["qform_code"] == 0:
        raise ScanError(RejectCode.NO_GEOMETRY, path, "neither sform nor qform has a code, so orientation is unknown")
    return file


@dataclass(frozen=True, eq=False)
class StoredStack(SliceStack):
    """A stack whose file may hold more than int16 HU: fractions, or values beyond the range.

    Attributes:
        stored: (K, J, I) as stored.
        slope: of the scaling.
        intercept: likewise.
    """

    stored: NDArray[Any]
    slope: float
    intercept: float

    def unrounded(self) -> NDArray[Any]:
        """Return the file's own values, (K, J, I): as stored, or float32 where they are scaled."""
        if (self.slope, self.intercept) == (1.0, 0.0):
            return self.stored
        scaled = np.empty_like(self.stored, np.float32)
        for plane, stored in zip(scaled, self.stored, strict=True):
            plane[:] = stored.astype(np.float64) * self.slope + self.intercept
        return scaled


def load_nifti(path: Path) -> SliceStack:
    """Read a NIfTI file.

    Returns:
        The stack, the same one however the voxels are stored; a `StoredStack` where they aren't plain int16.

    Raises:
        ScanError: when it can't be read, fails its checksum, inflates far beyond its voxels, or has values that aren't
            finite.
    """
    file = open_nifti(path)
    stored, slope, intercept = stored_voxels(file)
    hu = to_int16(stored, slope, intercept, path)
    stack = stack_from_affine(hu, file.affine)
    if np.may_share_memory(hu, stored):
        return stack
    of_stored: Any = stack_from_affine(stored, file.affine)
    origins, steps = stack.origins_ras_mm, (stack.row_step_ras_mm, stack.column_step_ras_mm)
    return StoredStack(stack.hu, origins, *steps, of_stored.hu, slope, intercept)


def read_voxels(file: NiftiFile, part: tuple[slice, ...] = ()) -> NDArray[np.int16]:
    """Read voxels, scaled as the header says; of a file that isn't compressed, no more than the part asked for.

    Args:
        file: opened.
        part: a slice for each axis; () means all.

    Returns:
        (A, B, C) int16.

    Raises:
        ScanError: as `load_nifti` does.
    """
    return to_int16(*stored_voxels(file, part), file.path)


def stored_voxels(file: NiftiFile, part: tuple[slice, ...] = ()) -> tuple[NDArray[Any], float, float]:
    """Read voxels as `read_voxels` does, but return them as stored, and their slope and intercept.

    Raises:
        ScanError: as `load_nifti` does, but for values that aren't finite.
    """
    path = file.path
    try:
        if part and not file.compressed:
            stored: NDArray[Any] = np.memmap(path, file.dtype, "r", file.offset, file.shape, "F")[part]
        else:
            whole = np.frombuffer(voxel_content(file), file.dtype)
            stored = whole.reshape(file.shape, order="F")[part]
        slope, intercept = file.header.get_slope_inter()
        if np.isinf(file.header["scl_slope"]):  # nibabel takes it for none
            raise HeaderDataError("infinite slope")
    except INFLATING_FAILS as error:
        raise ScanError(RejectCode.UNREADABLE, path, f"voxels can't be read ({type(error).__name__})") from error
    except HeaderDataError as error:
        raise ScanError(RejectCode.IMPLAUSIBLE_HU, path, "slope or intercept isn't finite") from error
    return stored, 1.0 if slope is None else slope, intercept or 0.0


def voxel_content(file: NiftiFile) -> bytes:
    """Return the bytes of all voxels, verified by gzip's checksum where the file is compressed.

    Raises:
        ScanError: UNREADABLE when there are fewer, TOO_LARGE when the file goes on and on behind them.
        OSError: when the file can't be read or isn't what was compressed.
    """
    with igzip.open(file.path) if file.compressed else file.path.open("rb") as stream:
        before = stream.read(file.offset)
        content: bytes = stream.read(file.voxel_bytes)
        if len(content) < file.voxel_bytes:
            found, needed = len(before) + len(content), file.offset + file.voxel_bytes
            raise ScanError(RejectCode.UNREADABLE, file.path, f"voxels cut short: {found} of {needed} bytes")
        if file.compressed and len(stream.read(MOST_SURPLUS_BYTES)) == MOST_SURPLUS_BYTES:  # its end has the checksum
            detail = f"inflates to more than {MOST_SURPLUS_BYTES} bytes beyond the {file.voxel_bytes} of its voxels"
            raise ScanError(RejectCode.TOO_LARGE, file.path, detail)
    return content


def to_int16(stored: NDArray[Any], slope: float, intercept: float, path: Path) -> NDArray[np.int16]:
    """Scale and round to int16, slab by slab, limiting what doesn't fit (no HU of interest lies out there).

    Args:
        stored: (A, B, C).
        slope: of the scaling.
        intercept: likewise.
        path: named in errors.

    Raises:
        ScanError: IMPLAUSIBLE_HU, when values aren't finite.
    """
    scaled = (slope, intercept) != (1.0, 0.0)
    if not scaled and np.can_cast(stored.dtype, np.int16, "safe"):
        return stored.astype(np.int16, copy=False)
    rounded = np.empty(stored.shape, np.int16, order="F")
    lost = 0
    with np.errstate(all="ignore"):
        for k in range(stored.shape[2]):
            slab = stored[:, :, k]
            slab = slab.astype(np.float64) * float(slope) + float(intercept) if scaled else slab
            if slab.dtype.kind == "f":
                lost += int(slab.size - np.isfinite(slab).sum())
                slab = np.rint(slab)
            rounded[:, :, k] = np.clip(slab, -32767, 32767)
    if lost:
        share = 100 * lost / stored.size
        raise ScanError(RejectCode.IMPLAUSIBLE_HU, path, f"{share:.2g} % of values are NaN or infinite")
    return rounded
