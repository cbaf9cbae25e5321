"""What a volume's file says about itself, and the checksum by which the file alone can be checked.

A volume is an ordinary b2nd file. Its metalayer `fmct`, at the file's beginning, is JSON: a CRC-32 of all other bytes,
then whose volume it is, how it was made and what the cache's index says of it. So no read needs the index, damage is
noticed before anything is unpacked, and volumes that never reached the index (a run was killed) can be taken into it.
The CRC is in the file and not in the index so that whoever has the file can check the very bytes that are unpacked, and
so that a process which replaces a file can't make the two disagree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isal.isal_zlib import crc32

from fmct.console.errors import FmctError

LAYER = "fmct"
OPENING = b'{"crc32": "'
BLANK = b"00000000"
CLOSING = b', "format": 1}'
"""No text within the JSON can hold this: its quotes would have backslashes before them."""
LONGEST_HEADER = 1 << 16


@dataclass(frozen=True)
class VolumeHeader:
    """What a volume's file says about itself.

    Attributes:
        scan_id: whose volume it is; also the file's name.
        preprocessing: the name of the folder of the settings that it was made with, `<preset>-<hash>`.
        checksum: SHA-256 of the voxels, hexadecimal.
        affine: 16 values, row by row, from the indices (x, y, z) to RAS millimeters.
        cropped_mm: how far the head reaches out of the volume.
        facts: about the scan that it was made of, further columns of the index.
    """

    scan_id: str
    preprocessing: str
    checksum: str
    affine: tuple[float, ...]
    cropped_mm: float = 0.0
    facts: Mapping[str, float | int | str] = field(default_factory=dict)

    def layer(self) -> bytes:
        """Return the JSON of the metalayer, with zeros where `sealed` puts the CRC."""
        values = {
            "crc32": BLANK.decode(),
            "scan_id": self.scan_id,
            "preprocessing": self.preprocessing,
            "checksum": self.checksum,
            "affine": self.affine,
            "cropped_mm": self.cropped_mm,
            "facts": {name: plain(value) for name, value in self.facts.items()},
            "format": 1,
        }
        return json.dumps(values).encode()


def plain(value: Any) -> float | int | str:
    """Return a number or text as Python's own, where NumPy made it."""
    native: float | int | str = value.item() if hasattr(value, "item") else value
    return native


def sealed(content: bytes) -> bytes:
    """Return a file's bytes with the CRC-32 of all others written into its header.

    Args:
        content: a b2nd file with the metalayer `VolumeHeader.layer`.
    """
    place = content.index(OPENING) + len(OPENING)
    end = place + len(BLANK)
    return b"".join((content[:place], b"%08x" % crc_without(content, place, end), content[end:]))


def crc_without(content: bytes, start: int, end: int) -> int:
    """Return the CRC-32 of a file's bytes, those of the CRC itself left out."""
    view = memoryview(content)
    return int(crc32(view[end:], crc32(view[:start])))


def checked_header(content: bytes, path: Path) -> VolumeHeader:
    """Check a file's bytes against their CRC-32 and return what they say about the volume.

    Args:
        content: all bytes of the file.
        path: its name, which is the scan's.

    Raises:
        FmctError: naming file and scan, when the bytes aren't those that were written, or are another scan's.
    """
    found = content.find(OPENING, 0, LONGEST_HEADER)
    closing = content.find(CLOSING, found, LONGEST_HEADER) if found >= 0 else -1
    if closing < 0:
        raise damaged(path, "carries no checksum: it is damaged, or an earlier version or another program wrote it")
    place = found + len(OPENING)
    end = place + len(BLANK)
    if content[place:end] != b"%08x" % crc_without(content, place, end):
        raise damaged(path, "is damaged: its bytes aren't those that were written (the checksum differs)")
    try:
        header = parsed(content[found : closing + len(CLOSING)])
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, f"has a header that can't be read ({type(error).__name__})") from error
    if header.scan_id != path.stem:
        raise damaged(path, f"is of another scan, {header.scan_id}")
    return header


def parsed(text: bytes) -> VolumeHeader:
    """Return the header that some JSON says.

    Raises:
        ValueError: when it isn't JSON, or has no 16 values as affine.
        KeyError: when a field is missing.
    """
    values = json.loads(text)
    if len(values["affine"]) != 16:
        raise ValueError("not 16 values")
    return VolumeHeader(
        str(values["scan_id"]),
        str(values["preprocessing"]),
        str(values["checksum"]),
        tuple(float(value) for value in values["affine"]),
        float(values["cropped_mm"]),
        dict(values["facts"]),
    )


def damaged(path: Path, problem: str) -> FmctError:
    """Return the error about a volume's file, whose name is the scan's."""
    return FmctError(
        f"the cached volume {problem}",
        path,
        "delete the file and run `fmct preprocess` again: it makes what lacks (its --verify finds all such files)",
    )
