"""The stored values of a DICOM file's frames, decoded one at a time.

Who decodes what: NumPy the uncompressed, pydicom RLE, Pillow (OpenJPEG, libjpeg-turbo) JPEG 2000, HTJ2K and 8-bit JPEG,
GDCM the other JPEGs. pydicom would take GDCM for JPEG 2000, which crashes on damaged streams, and has no way to decode
HTJ2K with Pillow or 12-bit JPEG at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom.uid as uids
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder

from fmct.data.dicom_file import DicomFile
from fmct.data.elements import element_of
from fmct.data.encodings import MOST_ROWS, NATIVE, PixelLayout
from fmct.data.gdcm_decoding import gdcm_pixels
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.stored_values import used_bits
from fmct.data.streams import StreamFacts, stream_facts

GDCM_SYNTAX = {"jpeg": uids.JPEGExtended12Bit, "jpeg-lossless": uids.JPEGLossless, "jpeg-ls": uids.JPEGLSLossless}
FLOAT_TYPES = {"FloatPixelData": "f4", "DoubleFloatPixelData": "f8"}


def stored_frame(file: DicomFile, layout: PixelLayout, path: Path, frame: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Decode a frame.

    Args:
        file: parsed, with the stream still open.
        layout: what `pixel_layout` says of it.
        path: named in errors.
        frame: number from 0.

    Returns:
        (rows, columns) the values, and the same with the bits that mean nothing still in them; signed as the header
        says.

    Raises:
        ScanError: UNREADABLE or TOO_LARGE, when a stream contradicts the header.
        Exception: whatever the decoders raise on damaged data.
    """
    if not 0 <= frame < layout.frames:
        raise ScanError(RejectCode.UNREADABLE, path, f"there is no frame {frame} among {layout.frames}")
    return native_frame(file, layout, frame) if file.syntax in NATIVE else encoded_frame(file, layout, path, frame)


def native_frame(file: DicomFile, layout: PixelLayout, frame: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read an uncompressed frame."""
    assert file.pixels is not None
    start = frame * layout.frame_bytes
    order = ">" if file.syntax == uids.ExplicitVRBigEndian else "<"
    if file.pixels.keyword in FLOAT_TYPES:
        content = read_at(file, file.pixels.start + start, layout.frame_bytes)
        values = np.frombuffer(content, order + FLOAT_TYPES[file.pixels.keyword]).reshape(layout.rows, layout.columns)
        return values, values
    if order == ">" and layout.bits_allocated == 8 and file.pixels.vr == "OW":  # PS3.5 A.3: in words, so swapped
        odd = start % 2
        content = read_at(file, file.pixels.start + start - odd, layout.frame_bytes + odd + 1 & ~1)
        whole = np.frombuffer(content, ">u2").astype("<u2").view(np.uint8)[odd:][: layout.frame_bytes]
    else:
        content = read_at(file, file.pixels.start + start, layout.frame_bytes)
        whole = np.frombuffer(content, f"{order}u{layout.bits_allocated // 8}")
    whole = whole.astype(whole.dtype.newbyteorder("="), copy=False).reshape(layout.rows, layout.columns)
    return used_bits(whole, layout.bits_stored, layout.high_bit, layout.signed), signed_view(whole, layout.signed)


def signed_view(whole: NDArray[Any], signed: bool) -> NDArray[Any]:
    """Return unsigned values as their two's complement, if they are one."""
    return whole.view(whole.dtype.str.replace("u", "i")) if signed else whole


def encoded_frame(file: DicomFile, layout: PixelLayout, path: Path, frame: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Decode a compressed frame, by what its stream says where that and the transfer syntax differ."""
    stream = encapsulated(file, layout, frame)
    if file.syntax == uids.RLELossless:
        whole = pydicom_pixels(stream, uids.RLELossless, "pydicom", layout, correct_unused_bits=False)
        whole = whole.view(f"u{whole.dtype.itemsize}")
        return used_bits(whole, layout.bits_stored, layout.high_bit, layout.signed), signed_view(whole, layout.signed)
    facts = stream_facts(stream)
    check_stream(facts, layout, path)
    assert facts is not None
    if facts.kind == "jpeg2000":
        values = pydicom_pixels(stream, uids.JPEG2000, "pillow", layout)
        return values, values
    if facts.kind == "jpeg" and facts.precision == 8:
        whole = pydicom_pixels(stream, uids.JPEGBaseline8Bit, "pillow", layout, bits_allocated=8, bits_stored=8)
        whole = whole.view(np.uint8)
    else:
        whole = gdcm_pixels(stream, GDCM_SYNTAX[facts.kind], layout.rows, layout.columns, facts.precision)
    bits = facts.precision if facts.kind == "jpeg-ls" else min(layout.bits_stored, 8 * whole.dtype.itemsize)
    values = used_bits(whole, bits, bits - 1, layout.signed)
    return values, values


def encapsulated(file: DicomFile, layout: PixelLayout, frame: int) -> bytes:
    """Return the stream of one frame: all fragments of a single one, or one for each; else by the table of offsets."""
    assert file.pixels is not None
    if layout.frames == 1 or len(layout.fragments) == layout.frames:
        pieces = layout.fragments if layout.frames == 1 else layout.fragments[frame : frame + 1]
        return b"".join(read_at(file, *piece) for piece in pieces)
    offsets = [element_of(file.dataset, key) for key in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
    starts, lengths = (bytes(element.value or b"") if element else b"" for element in offsets)
    extended = (starts, lengths) if starts and len(starts) == len(lengths) == 8 * layout.frames else None
    file.stream.seek(file.pixels.start)
    return get_frame(file.stream, frame, extended_offsets=extended, number_of_frames=layout.frames)


def read_at(file: DicomFile, start: int, length: int) -> bytes:
    """Return a piece of the file."""
    file.stream.seek(start)
    return file.stream.read(length)


def check_stream(facts: StreamFacts | None, layout: PixelLayout, path: Path) -> None:
    """Refuse a stream that isn't one gray image of the size in the header.

    Raises:
        ScanError: TOO_LARGE for sizes that no CT has, UNREADABLE otherwise.
    """
    if facts is None:
        raise ScanError(RejectCode.UNREADABLE, path, "the compressed stream has no valid header")
    found = f"the stream has {facts.rows} x {facts.columns} pixels of {facts.samples} samples, {facts.precision} bits"
    if max(facts.rows, facts.columns) > MOST_ROWS:
        raise ScanError(RejectCode.TOO_LARGE, path, f"{found}; at most {MOST_ROWS} rows and columns are read")
    if (facts.rows, facts.columns, facts.samples) != (layout.rows, layout.columns, 1):
        detail = f"{found}; the header says {layout.rows} x {layout.columns} of 1 sample"
        raise ScanError(RejectCode.UNREADABLE, path, detail)
    if facts.kind == "other" or not 2 <= facts.precision <= 16:
        raise ScanError(RejectCode.UNSUPPORTED, path, f"{found}; arithmetic or hierarchical JPEG, or too many bits")
    if facts.kind == "jpeg" and facts.precision not in {8, 12}:  # GDCM writes such, and reads 0 back as 4095
        raise ScanError(RejectCode.UNREADABLE, path, f"{found}; lossy JPEG has 8 or 12")
    if facts.precision > layout.bits_allocated:
        raise ScanError(RejectCode.UNREADABLE, path, f"{found}; the header says {layout.bits_allocated} bits")


def pydicom_pixels(stream: bytes, syntax: uids.UID, plugin: str, layout: PixelLayout, **options: Any) -> NDArray[Any]:
    """Decode one frame with one of pydicom's decoders, which also mends signs that JPEG 2000 streams have wrong."""
    described: dict[str, Any] = {
        "rows": layout.rows,
        "columns": layout.columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.signed),
        "pixel_keyword": "PixelData",
    }
    described |= {**options, "index": 0, "raw": True, "decoding_plugin": plugin}
    pixels, _ = get_decoder(syntax).as_array(encapsulate([stream]), **described)
    return np.asarray(pixels)
