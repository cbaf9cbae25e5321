"""One preprocessed volume, and its file: an ordinary b2nd file (blosc2), zstd level 1 after a byte shuffle.

The array is one chunk (several only beyond a gibibyte) of blocks that are whole slices, so what is unpacked is the
volume, in place. Bytes are shuffled, not bits: on head CT that is smaller by a seventh and unpacks half as fast again,
since zstd then codes the low byte's few frequent values instead of their noise spread over eight planes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import blosc2
import numpy as np
from numpy.typing import NDArray

from fmct.console.errors import FmctError
from fmct.console.files import write_bytes_atomically
from fmct.data.volume_header import LAYER, VolumeHeader, checked_header, damaged, sealed

Voxels = NDArray[np.int16 | np.float16]
DIMENSIONS = {np.dtype(np.int16): 3, np.dtype(np.float16): 4}
BLOCK_BYTES = 1 << 18
CHUNK_BYTES = 1 << 30
MOST_BYTES = 1 << 32
FOREIGN_CODEC = 6
"""In a chunk's header: a codec that isn't part of blosc2, for which it would look for a plug-in."""
ONE_THREAD = blosc2.DParams(nthreads=1)


@dataclass(frozen=True, eq=False)
class Volume:
    """A preprocessed scan.

    Attributes:
        voxels: (Z, Y, X) int16 HU, or (C, Z, Y, X) float16 windows in [0, 1]; indices grow upwards (S), to the front
            (A) and to the right (R) of the patient.
        affine: (4, 4) from the indices (x, y, z) to RAS millimeters, as in NIfTI.
        cropped_mm: how far the head reaches out of the volume, on the side where it is most; 0 where it fits.
    """

    voxels: Voxels
    affine: NDArray[np.float64]
    cropped_mm: float = 0.0

    @property
    def spacing_xyz_mm(self) -> tuple[float, float, float]:
        """Distance of voxel centers on each axis."""
        return spacing_xyz_mm(self.affine)

    @property
    def spacing_mm(self) -> float:
        """Distance of voxel centers where it is the same on all axes, else NaN."""
        return even_spacing_mm(self.spacing_xyz_mm)


def spacing_xyz_mm(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the distance of voxel centers on each axis of a (4, 4) affine."""
    columns = np.asarray(affine, np.float64)[:3, :3].T
    x, y, z = (float(abs(column).max() if np.count_nonzero(column) == 1 else math.hypot(*column)) for column in columns)
    return x, y, z


def even_spacing_mm(spacing_xyz: tuple[float, float, float]) -> float:
    """Return the spacing that all axes share, NaN where they differ."""
    return spacing_xyz[0] if max(spacing_xyz) - min(spacing_xyz) <= 1e-6 * max(spacing_xyz) else math.nan


@dataclass(frozen=True)
class StoredVolume:
    """A volume's file as it was written or found.

    Attributes:
        header: what the file says about itself.
        shape: of the voxels, (Z, Y, X) or (C, Z, Y, X).
        size_bytes: of the file.
    """

    header: VolumeHeader
    shape: tuple[int, ...]
    size_bytes: int


def write_volume(
    volume: Volume, path: Path, preprocessing: str, facts: Mapping[str, float | int | str] | None = None
) -> StoredVolume:
    """Write a volume, whole or not at all.

    Args:
        volume: int16 (Z, Y, X) or float16 (C, Z, Y, X).
        path: where to; named after the scan.
        preprocessing: the name of the folder of its settings.
        facts: about the scan it was made of.

    Raises:
        OSError: naming the file, when the disk is full or can't be written.
        ValueError: when the voxels are no volume.
    """
    voxels = np.ascontiguousarray(volume.voxels)
    if DIMENSIONS.get(voxels.dtype) != voxels.ndim or not 0 < voxels.nbytes <= MOST_BYTES:
        raise ValueError(f"no volume: {voxels.dtype} {voxels.shape}")
    affine = tuple(float(value) for value in np.asarray(volume.affine, np.float64).ravel())
    header = VolumeHeader(
        path.stem, preprocessing, checksum(voxels), affine, float(volume.cropped_mm), dict(facts or {})
    )
    content = sealed(packed(voxels, header))
    write_bytes_atomically(path, content)
    return StoredVolume(header, voxels.shape, len(content))


def packed(voxels: Voxels, header: VolumeHeader) -> bytes:
    """Return a b2nd file of a contiguous array, with a blank in place of the CRC."""
    chunks, blocks = partitions(voxels.shape, voxels.itemsize)
    parameters = blosc2.CParams(
        codec=blosc2.Codec.ZSTD, clevel=1, filters=[blosc2.Filter.SHUFFLE], nthreads=1, typesize=voxels.itemsize
    )
    array = blosc2.asarray(
        voxels, chunks=chunks, blocks=blocks, cparams=parameters, contiguous=True, meta={LAYER: header.layer()}
    )
    return bytes(array.to_cframe())


def partitions(shape: tuple[int, ...], itemsize: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of chunks and blocks, whole slices: chunks unpacked one after another are the array itself."""
    slices, slice_bytes = shape[-3], itemsize * shape[-2] * shape[-1]
    of_block = largest_divisor(slices, BLOCK_BYTES // slice_bytes)
    leading = (1,) * (len(shape) - 3)
    blocks = (*leading, of_block, *shape[-2:])
    if math.prod(shape) * itemsize <= CHUNK_BYTES:
        return shape, blocks
    blocks_of_chunk = largest_divisor(slices // of_block, CHUNK_BYTES // (of_block * slice_bytes))
    return (*leading, of_block * blocks_of_chunk, *shape[-2:]), blocks


def largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor of a number that is at most a limit; at least 1."""
    return max((divisor for divisor in range(1, min(number, limit) + 1) if number % divisor == 0), default=1)


def read_volume(path: Path, out: Voxels | None = None) -> Voxels:
    """Read a volume, checked, with one thread: loaders have a process per core.

    Args:
        path: the file, named after its scan.
        out: contiguous, of the volume's shape and dtype: where to put it. Filling an array that was used before is
            quicker by a third than having a new one made.

    Returns:
        (Z, Y, X) int16 HU or (C, Z, Y, X) float16 windows; `out` where it was given.

    Raises:
        FmctError: naming the file and the scan, when it is missing, damaged, another scan's or no volume.
        ValueError: when `out` doesn't fit.
    """
    return unpacked(file_content(path), path, out)[1]


def read_hu(path: Path) -> NDArray[np.int16]:
    """Read a volume that must be HU, as `read_volume`.

    Returns:
        (Z, Y, X) int16 HU.

    Raises:
        FmctError: as `read_volume`, and when the volume holds windows.
    """
    voxels = read_volume(path)
    if voxels.dtype != np.int16:
        fix = "use a cache of the preset isotropic"
        raise FmctError("the cached volume holds windows, no HU", path, fix)
    return voxels.astype(np.int16, copy=False)


def check_volume(path: Path, preprocessing: Collection[str], expected: str | None = None) -> StoredVolume:
    """Check a volume against all that is known of it: its bytes, its voxels, how it was made and what the index lists.

    Args:
        path: the file, named after its scan.
        preprocessing: names that the folder of the settings has had; it should have been made with one of them.
        expected: SHA-256 of the voxels by the index; None where the file is to be judged alone.

    Raises:
        FmctError: naming the file and the scan, when anything isn't as it should be.
    """
    content = file_content(path)
    header, voxels = unpacked(content, path)
    if checksum(voxels) != header.checksum:
        raise damaged(path, "isn't what was written (the checksum of its voxels differs)")
    if header.preprocessing not in preprocessing:
        raise damaged(path, f"was made with other settings ({header.preprocessing})")
    if expected is not None and header.checksum != expected:
        raise damaged(path, "isn't the one that the index lists (the checksum differs)")
    return StoredVolume(header, voxels.shape, len(content))


def file_content(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        FmctError: naming the file and the scan, when it is missing or can't be read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return file.read()
    except FileNotFoundError as error:
        raise damaged(path, "is missing") from error
    except OSError as error:
        raise damaged(path, f"can't be read ({error.strerror})") from error


def unpacked(content: bytes, path: Path, out: Voxels | None = None) -> tuple[VolumeHeader, Voxels]:
    """Check a file's bytes and unpack the volume in them, as `read_volume`.

    Only plain arrays and blosc2's own codecs: `blosc2.open`, which opens expressions and remote arrays, isn't used.
    """
    header = checked_header(content, path)
    try:
        array = blosc2.ndarray_from_cframe(content)
        shape, dtype = tuple(array.shape), np.dtype(array.dtype)
    except (RuntimeError, ValueError, TypeError, SyntaxError, MemoryError) as error:
        raise damaged(path, f"is no blosc2 array ({type(error).__name__})") from error
    size = math.prod(shape) * dtype.itemsize
    if DIMENSIONS.get(dtype) != len(shape) or not 0 < size <= MOST_BYTES:
        raise damaged(path, f"is no volume of int16 or float16, but {dtype} {shape}")
    frame = array.schunk
    expected = partitions(shape, dtype.itemsize)
    foreign = any(frame.get_lazychunk(number)[2] >> 5 == FOREIGN_CODEC for number in range(frame.nchunks))
    if foreign or (tuple(array.chunks), tuple(array.blocks)) != expected:
        raise damaged(path, "isn't packed the way fmct does it")
    if out is None:
        out = np.empty(shape, dtype)
    elif out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
        raise ValueError(f"the volume is {dtype} {shape}, `out` {out.dtype} {out.shape} or not contiguous")
    flat = out.reshape(-1)
    step = math.prod(expected[0])
    frame.dparams = ONE_THREAD
    try:
        for number in range(frame.nchunks):
            frame.decompress_chunk(number, dst=flat[number * step : (number + 1) * step])
    except (RuntimeError, ValueError) as error:
        raise damaged(path, f"can't be unpacked ({type(error).__name__})") from error
    return header, out


def checksum(voxels: Voxels) -> str:
    """Return the SHA-256 of the voxels, little endian, x fastest."""
    return hashlib.sha256(np.ascontiguousarray(voxels, voxels.dtype.newbyteorder("<")).data).hexdigest()
