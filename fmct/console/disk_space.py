"""A full disk, a spent quota, a folder that can't be written: said in three lines, with how much is needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fmct.console.errors import FmctError
from fmct.console.file_errors import FIXES, FREE_SPACE, FULL


@contextmanager
def writing_into(folder: Path, bytes_needed: Callable[[], float], go_on: str) -> Iterator[None]:
    """Turn a failed write below a folder into an error that says how to go on; other errors pass.

    Args:
        folder: what is written into.
        bytes_needed: estimates, at the time of the failure, how much is still to be written; 0 or NaN: unknown.
        go_on: what happens when the command is run again.

    Raises:
        FmctError: when a file in the folder can't be written.
    """
    try:
        yield
    except OSError as error:
        if not isinstance(error.filename, str) or not is_about(Path(error.filename), folder):
            raise
        again = f"then run it again: {go_on}"
        if error.errno in FULL:
            free, needed = in_units(shutil.disk_usage(existing(folder)).free), bytes_needed()
            more = f", about {in_units(needed)} more" if needed > 0 else ""
            fix = f"{FREE_SPACE}{more} ({free} are free now), {again}"
            raise FmctError(f"the disk is full ({error.strerror})", folder, fix) from error
        fix = f"{FIXES.get(error.errno or 0, 'make the folder writable (disk, rights, limits)')}, {again}"
        raise FmctError(f"{Path(error.filename).name} can't be written ({error.strerror})", folder, fix) from error


def is_about(path: Path, folder: Path) -> bool:
    """Tell whether a path lies in a folder, or is one that the folder lies in and that may have to be made for it.

    Either may be relative or lead through links: what writes may know the folder by another name.
    """
    path, folder = path.resolve(), folder.resolve()
    return path.is_relative_to(folder) or folder.is_relative_to(path)


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest above it that there is."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def in_units(size_bytes: float) -> str:
    """Return a size for people to read, in powers of 1000."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if size_bytes < 999.5:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} TB"
