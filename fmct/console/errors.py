"""Errors that a user can act on: what went wrong, where, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """What a command's exit status says to a script."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    SOME_REJECTED = 3
    PREEMPTED = 75


class FmctError(Exception):
    """An expected failure, printed in three lines and without a traceback.

    Args:
        what: one sentence saying what is wrong.
        where: the file, key or scan it is about.
        fix: what the user can do.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, what: str, where: str | Path, fix: str) -> None:
        super().__init__(what, str(where), fix)
        self.what = what
        self.where = str(where)
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}\n  in {self.where}\n  Fix: {self.fix}"


class UsageError(FmctError):
    """Wrong usage, configuration or input files; exit code 2."""

    exit_code = ExitCode.USAGE


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like `word`, or None when nothing comes near."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def require_file(path: Path, what: str, fix: str) -> Path:
    """Return `path` if it exists.

    Raises:
        UsageError: when it doesn't, naming the nearest neighbor in the same folder.
    """
    if path.exists():
        return path
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    guess = nearest(path.name, siblings)
    raise UsageError(f"{what} doesn't exist", path, f"did you mean {path.parent / guess}?" if guess else fix)


def require_empty_folder(folder: Path) -> Path:
    """Return `folder` if it is empty or not there yet.

    Raises:
        UsageError: when it holds files.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("the folder isn't empty", folder, "give --out a new folder")
    return folder
