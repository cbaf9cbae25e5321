"""A DICOM file's data set up to its pixels: of ordinary files by `header_scan`, of others by pydicom within bounds.

Left to itself, `pydicom.dcmread` trusts the file: it asks for as many bytes as an element claims to have (up to 4 GB),
inflates a deflated data set whole, and makes an object of every item of every sequence. Here no more is read than there
is, no more inflated than is needed, and no more objects are made than a header of thousands of frames has.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from fmct.data.bounded_readers import INFLATED_HEADER_BYTES, MOST_READS, BoundedReader, InflatedReader
from fmct.data.bounded_readers import TooMuchError as TooMuchError
from fmct.data.elements import Elements, text
from fmct.data.header_scan import UNDEFINED_LENGTH as UNDEFINED_LENGTH
from fmct.data.header_scan import Wanted, quick_header

PIXEL_KEYWORDS = {0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}
META_TAGS: list[BaseTag | int] = [0x00020002, 0x00020010]
FIRST_BYTES = 1 << 16
"""Most headers end within as many, and one read of them is quicker than hundreds of small ones."""


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the pixels are: their element's keyword, VR and length (`UNDEFINED_LENGTH` if encapsulated), and offset."""

    keyword: str
    vr: str
    length: int
    start: int


@dataclass(frozen=True, slots=True)
class DicomFile:
    """A file parsed up to its pixels.

    Attributes:
        dataset: the wanted elements.
        syntax: UID of the transfer syntax, inferred where the file doesn't say.
        media_class: SOP class by the file's meta information, "" without.
        pixels: the element at which parsing stopped; None where the file ended without pixels.
        stream: what the pixels can be read from, at the offset that `pixels` says.
        size: bytes in the file; unknown, and None, where the data set is deflated.
        changed_ns: when the file was changed last.
    """

    dataset: Elements
    syntax: str
    media_class: str
    pixels: PixelElement | None
    stream: BinaryIO
    size: int | None
    changed_ns: int = 0

    def pixel_bytes(self, wanted: int) -> int:
        """Return how many of the first `wanted` bytes from the start of the pixels are there."""
        assert self.pixels is not None
        start = self.pixels.start
        end = self.size if self.size is not None else cast(InflatedReader, self.stream).reach(start + wanted)
        return min(max(end - start, 0), wanted)


class PixelStop:
    """Tells pydicom to stop at the pixels, and remembers what their element says."""

    __slots__ = ("length", "tag", "vr")

    def __init__(self) -> None:
        self.tag, self.vr, self.length = 0, "", 0

    def __call__(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        """Return whether to stop."""
        if tag not in PIXEL_KEYWORDS:
            return False
        self.tag, self.vr, self.length = int(tag), str(vr or ""), length
        return True


@contextmanager
def open_dicom(path: Path, wanted: Wanted) -> Iterator[DicomFile]:
    """Parse a file up to its pixels, and keep it open for them.

    Args:
        path: the file, with or without the DICM prefix.
        wanted: which elements.

    Raises:
        TooMuchError: when the header would take unreasonable memory or time.
        Exception: whatever pydicom raises on a damaged header.
    """
    with path.open("rb", buffering=0) as raw:
        status = os.fstat(raw.fileno())
        start = raw.read(FIRST_BYTES) or b""
        file = parse_quickly(raw, status.st_size, start, wanted)
        if file is None:
            with quiet_pydicom():
                file = parse_file(raw, status.st_size, start, wanted)
        yield replace(file, changed_ns=status.st_mtime_ns)


def parse_quickly(raw: io.FileIO, size: int, start: bytes, wanted: Wanted) -> DicomFile | None:
    """Parse an open file by its first part, None where it isn't an ordinary one."""
    quick = quick_header(start, wanted, PIXEL_KEYWORDS)
    if quick is None:
        return None
    tag, vr, length, value = quick.pixels
    pixels = PixelElement(PIXEL_KEYWORDS[tag], vr or "OW", length, value)
    stream = io.BytesIO(start) if len(start) >= size else rewound(raw, size)
    return DicomFile(quick.elements, quick.syntax, quick.media_class, pixels, stream, size)


def parse_file(raw: io.FileIO, size: int, start: bytes, wanted: Wanted) -> DicomFile:
    """Parse an open file by its first part, and only if that isn't enough by all of it."""
    everything = len(start) >= size
    tags: list[BaseTag | int] = list(wanted.tags)
    try:
        file = parse(io.BytesIO(start), len(start), tags, everything)
    except Exception:  # anything may break where the first part ends; it is read again with all that follows
        if everything:
            raise
        file = None
    if file is None or (file.pixels is None and not everything):
        file = parse(rewound(raw, size), size, tags, everything=True)
        assert file is not None
    elif not everything:
        file = replace(file, stream=rewound(raw, size), size=size)
    return file


def rewound(raw: io.FileIO, size: int) -> BoundedReader:
    """Return what an open file can be read with from its start."""
    raw.seek(0)
    return BoundedReader(raw, size)


def parse(stream: BinaryIO, size: int | None, tags: list[BaseTag | int], everything: bool) -> DicomFile | None:
    """Parse a stream up to its pixels; None where all of the file is needed for it and the stream isn't that."""
    stream.seek(128)
    start = 132 if stream.read(4) == b"DICM" else 0
    stream.seek(start)
    meta = read_dataset(stream, False, True, stop_when=after_meta, specific_tags=META_TAGS)
    syntax = text(meta, "TransferSyntaxUID") or inferred_syntax(stream)
    if syntax == DeflatedExplicitVRLittleEndian:
        if not everything:
            return None
        stream, size = InflatedReader(stream.read()), None
    stop, implicit, little = PixelStop(), syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    try:
        dataset = read_dataset(stream, implicit, little, stop_when=stop, specific_tags=tags)
    except Exception as error:  # pydicom raises an error of its own for whatever its stream raises
        if isinstance(stream, (BoundedReader, InflatedReader)) and stream.reads_left < 0:
            raise TooMuchError(f"the header takes more than {MOST_READS} reads") from error
        raise
    pixels = None
    if isinstance(stream, InflatedReader) and not stop.tag and stream.inflated_bytes >= INFLATED_HEADER_BYTES:
        raise TooMuchError(f"the header inflates to more than {INFLATED_HEADER_BYTES} bytes")
    if stop.tag:
        header_bytes = 12 if stop.vr in EXPLICIT_VR_LENGTH_32 else 8
        pixels = PixelElement(PIXEL_KEYWORDS[stop.tag], stop.vr or "OW", stop.length, stream.tell() + header_bytes)
    return DicomFile(dataset, syntax, text(meta, "MediaStorageSOPClassUID"), pixels, stream, size)


def after_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    """Tell whether an element is behind the file's meta information."""
    return tag >> 16 != 2


def inferred_syntax(stream: BinaryIO) -> str:
    """Tell the encoding of a data set without meta information by its first element: a VR shows, and so does order."""
    start = stream.read(6)
    stream.seek(-len(start), io.SEEK_CUR)
    if not start[4:6].isalpha() or not start[4:6].isupper():
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRBigEndian if start[0] == 0 and start[1] else ExplicitVRLittleEndian)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep what pydicom warns of and logs, which quotes header values, out of sight."""
    logger = logging.getLogger("pydicom")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was_disabled
