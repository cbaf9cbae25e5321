"""What a compressed image says of itself, read off its first markers before a decoder sees it.

A decoder believes the stream: one that claims 60,000 x 60,000 pixels in a file of 512 x 512 makes it take gigabytes.
And the stream knows best how it was compressed, so it is believed where the transfer syntax says otherwise.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from fmct.data.encodings import MOST_ROWS

JPEG_KINDS = {0xC0: "jpeg", 0xC1: "jpeg", 0xC2: "jpeg", 0xC3: "jpeg-lossless", 0xF7: "jpeg-ls"}
"""By the marker of the frame: baseline, extended and progressive, lossless, JPEG-LS."""


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What a compressed stream says of itself; kind is "jpeg2000", one of `JPEG_KINDS`, or "other"."""

    kind: str
    rows: int
    columns: int
    samples: int
    precision: int


def stream_facts(stream: bytes) -> StreamFacts | None:
    """Read size and kind off the first markers of a JPEG, JPEG-LS or JPEG 2000 stream; None where it is none."""
    start = stream.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start >= 0 and (start == 0 or stream[4:8] == b"jP  "):
        return jpeg2000_facts(stream[start : start + 64])
    position = 2 if stream[:2] == b"\xff\xd8" else len(stream)
    while position + 4 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        length = int.from_bytes(stream[position + 2 : position + 4], "big")
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}):
            if position + 10 > len(stream):
                return None
            precision, rows, columns, samples = struct.unpack(">BHHB", stream[position + 4 : position + 10])
            kind = JPEG_KINDS.get(marker, "other")
            return StreamFacts(kind, rows, columns, samples, precision)
        position += 2 + length
    return None


def jpeg2000_facts(head: bytes) -> StreamFacts | None:
    """Read the SIZ marker (ISO 15444-1 A.5.1); more tiles than a picture of `MOST_ROWS` needs count as no stream."""
    if len(head) < 45:
        return None
    right, bottom, left, top, tile_columns, tile_rows = struct.unpack(">6L", head[8:32])
    samples, depth = struct.unpack(">HB", head[40:43])
    columns, rows = right - left, bottom - top
    if min(tile_columns, tile_rows, rows, columns) < 1 or max(left, top) > MOST_ROWS:
        return None
    tiles = math.ceil(right / tile_columns) * math.ceil(bottom / tile_rows)
    return StreamFacts("jpeg2000", rows, columns, samples, (depth & 0x7F) + 1) if tiles <= MOST_ROWS else None
