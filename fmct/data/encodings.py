"""How the pixels of a DICOM file are stored, and what is refused before any memory is taken for them.

Everything here is known from the header: a file that can't be decoded, is cut short, or claims sizes that no CT has is
found when a folder is indexed, not weeks later in the middle of preprocessing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom.uid as uids

from fmct.data.dicom_file import UNDEFINED_LENGTH, DicomFile
from fmct.data.elements import Elements, element_of, integer, items, text
from fmct.data.rejection import RejectCode, ScanError

NATIVE = {
    uids.ImplicitVRLittleEndian, uids.ExplicitVRLittleEndian, uids.DeflatedExplicitVRLittleEndian,
    uids.ExplicitVRBigEndian,
}  # fmt: skip
COMPRESSED = {
    uids.JPEGBaseline8Bit, uids.JPEGExtended12Bit, uids.JPEGLossless, uids.JPEGLosslessSV1, uids.JPEGLSLossless,
    uids.JPEGLSNearLossless, uids.JPEG2000Lossless, uids.JPEG2000, uids.HTJ2KLossless, uids.HTJ2KLosslessRPCL,
    uids.HTJ2K, uids.RLELossless,
}  # fmt: skip
MOST_ROWS = 4096
"""CT matrices are 512 or 768, 1024 and 2048 with photon counting, rarely 4096; scouts are as long as a body."""
MOST_VOXELS = 1 << 30
"""A file of 1024 x 1024 x 1024: more than a whole body at 0.6 mm, and 2 GiB as int16."""
OTHER_QUANTITIES = {"OD", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT"}
"""RescaleType's defined terms (PS3.3 C.11.1.1.2) without HU and US: US is "unspecified", which old scanners write."""
BITS = {"PixelData": (8, 16, 32), "FloatPixelData": (32,), "DoubleFloatPixelData": (64,)}
ITEM, SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """How the pixels lie in a file, by its header.

    Attributes:
        frames: images in the file, at least 1.
        bits_allocated: bits that a pixel takes in the file.
        bits_stored: bits that mean something; the others may hold anything.
        high_bit: number of the highest bit that means something.
        signed: whether those bits are a two's complement.
        fragments: offset and length of each piece of compressed pixels, without the table of offsets before them; none
            of uncompressed ones.
    """

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    fragments: tuple[tuple[int, int], ...] = ()

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame."""
        return self.rows * self.columns * self.bits_allocated // 8


def pixel_layout(file: DicomFile, path: Path) -> PixelLayout:
    """Check that the gray images of a file can be decoded to HU, as far as its header tells.

    Args:
        file: parsed, with the stream still open.
        path: named in errors.

    Raises:
        ScanError: UNSUPPORTED, TOO_LARGE, UNREADABLE (cut short, contradictory) or IMPLAUSIBLE_HU (other quantities).
        ValueError: when a number of the header isn't one.
    """
    dataset, pixels = file.dataset, file.pixels
    if file.syntax not in NATIVE and file.syntax not in COMPRESSED:
        raise ScanError(RejectCode.UNSUPPORTED, path, f"transfer syntax {syntax_name(file.syntax)}")
    rows, columns = integer(dataset, "Rows"), integer(dataset, "Columns")
    if pixels is None or not rows or not columns:
        raise ScanError(RejectCode.UNREADABLE, path, "the file ends before any pixels")
    frames = number_of_frames(dataset)
    if max(rows, columns) > MOST_ROWS or rows * columns * frames > MOST_VOXELS:
        limit = f"at most {MOST_ROWS} rows and columns and {MOST_VOXELS} pixels are read"
        raise ScanError(RejectCode.TOO_LARGE, path, f"{frames} x {rows} x {columns} pixels; {limit}")
    allocated = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}.get(pixels.keyword)
    allocated = allocated or integer(dataset, "BitsAllocated")
    stored = integer(dataset, "BitsStored", allocated)
    layout = PixelLayout(
        rows, columns, frames, allocated, stored, integer(dataset, "HighBit", stored - 1),
        bool(integer(dataset, "PixelRepresentation")),
    )  # fmt: skip
    if allocated not in BITS[pixels.keyword]:
        raise ScanError(RejectCode.UNSUPPORTED, path, f"{allocated} bits per pixel")
    if not 1 <= stored <= allocated or not stored - 1 <= layout.high_bit < allocated:
        found = f"{stored} of {allocated} bits up to bit {layout.high_bit}"
        raise ScanError(RejectCode.UNREADABLE, path, f"the header contradicts itself: {found}")
    check_meaning(dataset, path)
    if file.syntax in NATIVE:
        check_native_bytes(file, layout, path)
        return layout
    layout = replace(layout, fragments=tuple(find_fragments(file, path))[1:])
    if len(layout.fragments) < frames:
        detail = f"pixel data cut short: {len(layout.fragments)} fragments of {frames} frames"
        raise ScanError(RejectCode.UNREADABLE, path, detail)
    return layout


def number_of_frames(dataset: Elements) -> int:
    """Return how many images a file has: 1 unless it says more.

    Raises:
        ValueError: when the number isn't one.
    """
    return max(int(text(dataset, "NumberOfFrames") or 1), 1)


def syntax_name(syntax: str) -> str:
    """Return the name of a transfer syntax; of unknown ones the UID, unless it is none."""
    if not re.fullmatch(r"[0-9.]{1,64}", syntax):
        return "(malformed)"
    name = str(uids.UID(syntax).name)
    return syntax if name == syntax else f"{name} ({syntax})"


def check_meaning(dataset: Elements, path: Path) -> None:
    """Refuse what can't be turned into HU by a slope and an intercept.

    Raises:
        ScanError: UNSUPPORTED for lookup tables, IMPLAUSIBLE_HU for a quantity that isn't HU.
    """
    if element_of(dataset, "ModalityLUTSequence") is not None:
        raise ScanError(RejectCode.UNSUPPORTED, path, "values need a lookup table (ModalityLUTSequence)")
    if text(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
        raise ScanError(RejectCode.SECONDARY, path, "PALETTE COLOR: values are colors")
    holders = [dataset, *items(dataset, "SharedFunctionalGroupsSequence")[:1]]
    holders += items(dataset, "PerFrameFunctionalGroupsSequence")
    for holder in holders:
        for owner in [holder, *items(holder, "PixelValueTransformationSequence")]:
            quantity = text(owner, "RescaleType").upper()
            if quantity in OTHER_QUANTITIES:
                raise ScanError(RejectCode.IMPLAUSIBLE_HU, path, f"RescaleType {quantity}: values are no HU")


def check_native_bytes(file: DicomFile, layout: PixelLayout, path: Path) -> None:
    """Refuse uncompressed pixels that are cut short.

    Raises:
        ScanError: UNREADABLE.
    """
    assert file.pixels is not None
    if file.pixels.length == UNDEFINED_LENGTH:
        detail = f"the header says {syntax_name(file.syntax)}, but the pixels are encapsulated"
        raise ScanError(RejectCode.UNREADABLE, path, detail)
    expected = layout.frame_bytes * layout.frames
    found = file.pixel_bytes(min(expected, file.pixels.length))
    if found < expected:
        raise ScanError(RejectCode.UNREADABLE, path, f"pixel data cut short: {found} of {expected} bytes")


def find_fragments(file: DicomFile, path: Path) -> Iterator[tuple[int, int]]:
    """Yield offset and length of each piece of compressed pixels, hopping from one to the next without reading them.

    Raises:
        ScanError: UNREADABLE, when one is cut short or something else lies between them.
    """
    assert file.pixels is not None
    assert file.size is not None
    if file.pixels.keyword != "PixelData" or file.pixels.length != UNDEFINED_LENGTH:
        detail = f"the header says {syntax_name(file.syntax)}, but the pixels aren't encapsulated"
        raise ScanError(RejectCode.UNREADABLE, path, detail)
    position = file.pixels.start
    while position + 8 <= file.size:
        file.stream.seek(position)
        group, element, length = struct.unpack("<HHL", file.stream.read(8))
        if group << 16 | element == SEQUENCE_END:
            return
        if group << 16 | element != ITEM:
            raise ScanError(RejectCode.UNREADABLE, path, "the pixels' fragments don't follow each other")
        position += 8
        if position + length > file.size:
            detail = f"pixel data cut short: {file.size - position} of {length} bytes"
            raise ScanError(RejectCode.UNREADABLE, path, detail)
        yield position, length
        position += length
