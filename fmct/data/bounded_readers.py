"""Streams that are never read beyond what is there, and never inflated beyond what was agreed."""

from __future__ import annotations

import io
import zlib

MOST_READS = 3_000_000
"""A header of 2,000 frames takes some 400,000; more than this is made to fill the memory."""
INFLATED_HEADER_BYTES = 1 << 24
"""A deflated header is read no further."""


class TooMuchError(ValueError):
    """A header that would take unreasonable memory or time."""


class BoundedReader(io.BufferedReader):
    """A file that is never asked for more than it holds, nor too often."""

    def __init__(self, raw: io.FileIO, size: int) -> None:
        super().__init__(raw)
        self.size = size
        self.reads_left = MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most what is left."""
        self.reads_left -= 1
        if self.reads_left < 0:
            raise TooMuchError(f"the header takes more than {MOST_READS} reads")
        left = max(self.size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


class InflatedReader(io.BytesIO):
    """A deflated data set (PS3.5 A.5), inflated only as far as it is read, and never beyond what was agreed."""

    def __init__(self, compressed: bytes) -> None:
        super().__init__()
        self.inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self.compressed = compressed
        self.inflated_bytes = 0
        self.reads_left = MOST_READS

    def reach(self, end: int) -> int:
        """Inflate up to an offset, and return how far there is anything.

        Raises:
            zlib.error: when the stream is damaged.
        """
        if end > self.inflated_bytes and not self.inflater.eof:
            more = self.inflater.decompress(self.compressed, end - self.inflated_bytes)
            self.compressed = self.inflater.unconsumed_tail
            position = self.tell()
            self.seek(self.inflated_bytes)
            self.write(more)
            self.inflated_bytes += len(more)
            self.seek(position)
        return self.inflated_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        """Read what has been inflated, or can be without going beyond the longest header."""
        self.reads_left -= 1
        if self.reads_left < 0:
            raise TooMuchError(f"the header takes more than {MOST_READS} reads")
        wanted = INFLATED_HEADER_BYTES if size is None or size < 0 else size
        self.reach(min(self.tell() + wanted, INFLATED_HEADER_BYTES))
        return super().read(wanted)
