"""What a NIfTI file claims, checked against what it can hold before any memory is taken.

nibabel interprets the fields; the bytes are read here. `nibabel.load` follows whatever sizes the file names: an
extension of a negative length makes it inflate a compressed file to its end.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from fmct.data.encodings import MOST_VOXELS
from fmct.data.rejection import RejectCode, ScanError

HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
SINGLE_FILE = {348: (b"n+1\0", 344), 540: (b"n+2\0", 4)}
PAIRS = {b"ni1\0", b"ni2\0"}
GZIP_START = b"\x1f\x8b"
MOST_HEADER_BYTES = 1 << 24
"""Extensions (notes, XML) before the voxels take kilobytes."""
HIGHEST_RATIO = 1032
"""Deflate can't shrink further: 258 bytes for 2 bits (RFC 1951)."""


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """An opened NIfTI file.

    Attributes:
        path: the file.
        compressed: whether its content is gzip, whatever its name.
        header: nibabel's.
        shape: counts of voxels along three axes, more where it isn't one gray volume.
        affine: (4, 4) voxel index to RAS millimeters: the sform where it has a code, else the qform.
        offset: bytes before the voxels.
    """

    path: Path
    compressed: bool
    header: Any
    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    offset: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored voxels, in the file's byte order."""
        dtype: np.dtype[Any] = np.dtype(self.header.get_data_dtype())
        return dtype

    @property
    def voxel_bytes(self) -> int:
        """Bytes that all voxels take, inflated."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_nifti_header(path: Path) -> NiftiFile:
    """Read a header, NIfTI-1 or NIfTI-2 in any byte order, and check its sizes.

    Raises:
        ScanError: UNREADABLE when it is no NIfTI header, contradicts itself, or claims more than the file can hold;
            SECONDARY for anything but one gray volume; TOO_LARGE for absurd sizes; NO_GEOMETRY without an affine.
    """
    compressed, start = first_bytes(path)
    header = parsed_header(path, start)
    try:
        dims = [int(count) for count in header["dim"]]
        dtype = np.dtype(header.get_data_dtype())
        offset = float(header["vox_offset"])
    except (HeaderDataError, KeyError, ValueError) as error:
        raise ScanError(RejectCode.UNREADABLE, path, f"no NIfTI header ({type(error).__name__})") from error
    if not 1 <= dims[0] <= 7 or min(dims[1 : dims[0] + 1]) < 1:
        raise ScanError(RejectCode.UNREADABLE, path, f"dimensions {dims}")
    shape = tuple(count for axis, count in enumerate(dims[1 : dims[0] + 1]) if axis < 3 or count != 1)
    if len(shape) != 3 or dtype.kind not in "iuf":
        raise ScanError(RejectCode.SECONDARY, path, f"{shape} of {dtype} is no gray volume")
    if math.prod(shape) > MOST_VOXELS:
        raise ScanError(RejectCode.TOO_LARGE, path, f"{shape} voxels; at most {MOST_VOXELS} are read")
    if not math.isfinite(offset) or not header["sizeof_hdr"] + 4 <= offset:
        raise ScanError(RejectCode.UNREADABLE, path, f"voxels begin at byte {offset:g}, within the header")
    if offset > MOST_HEADER_BYTES:
        raise ScanError(RejectCode.TOO_LARGE, path, f"voxels begin at byte {offset:g}; {MOST_HEADER_BYTES} are read")
    with np.errstate(all="ignore"):
        try:
            affine = np.asarray(header.get_best_affine(), np.float64)
        except (HeaderDataError, ValueError, FloatingPointError) as error:
            raise ScanError(RejectCode.NO_GEOMETRY, path, "the affine is no rotation") from error
    file = NiftiFile(path, compressed, header, shape, affine, int(offset))
    needed, held = file.offset + file.voxel_bytes, path.stat().st_size * (HIGHEST_RATIO if compressed else 1)
    if held < needed:
        at_most = "at most " if compressed else ""
        raise ScanError(RejectCode.UNREADABLE, path, f"voxels cut short: {at_most}{held} of {needed} bytes")
    return file


def first_bytes(path: Path) -> tuple[bool, bytes]:
    """Return whether a file is gzip, told by its content, and as many inflated bytes as the longest header has.

    Raises:
        ScanError: UNREADABLE.
    """
    try:
        with path.open("rb") as plain:
            start = plain.read(max(HEADERS))
        if start[:2] != GZIP_START:
            return False, start
        with gzip.open(path) as stream:
            return True, stream.read(max(HEADERS))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ScanError(RejectCode.UNREADABLE, path, f"no NIfTI header ({type(error).__name__})") from error


def parsed_header(path: Path, start: bytes) -> Any:
    """Return nibabel's header object.

    Raises:
        ScanError: UNREADABLE.
    """
    for size, kind in HEADERS.items():
        if size not in {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")}:
            continue
        magic, place = SINGLE_FILE[size]
        found = start[place : place + 4]
        if found in PAIRS:
            raise ScanError(RejectCode.UNREADABLE, path, "voxels are in another file (.hdr and .img): join them")
        if len(start) >= size and found == magic:
            order = "<" if int.from_bytes(start[:4], "little") == size else ">"
            return kind(start[:size], endianness=order, check=False)
    raise ScanError(RejectCode.UNREADABLE, path, "no NIfTI header")
