"""Where in the code something happened, without a word of what was worked on: texts of errors may name patients."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import IO

FRAME = re.compile(rb'^  File "([^"]+)", line (\d+) in ', re.MULTILINE)


def place_of(error: BaseException) -> str:
    """Return an unexpected error's type and where it was raised, not its text, which may quote a header or a path."""
    name, frames = type(error).__name__, traceback.extract_tb(error.__traceback__)
    return f"{name} in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else name


def innermost_place(notes: IO[bytes]) -> str:
    """Return the line that the fault handler wrote down last, as ` in FILE, line N`; nothing where it wrote none.

    Args:
        notes: a file that a child's fault handler writes to, maybe several times; each time the innermost line first.
    """
    notes.seek(0)
    last = notes.read().rpartition(b"(most recent call first)")[2]
    found = FRAME.search(last)
    return f" in {Path(found[1].decode(errors='replace')).name}, line {int(found[2])}" if found else ""
