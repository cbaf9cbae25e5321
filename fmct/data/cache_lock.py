"""One run at a time works on a cache: two would each save an index without the other's scans."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmct.console.errors import UsageError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs, also those on other machines, from working on a cache; a killed run holds nothing back.

    Args:
        folder: the folder of some settings.

    Raises:
        UsageError: when another run is at work, or the folder can't be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(
            f"the cache can't be written to ({error.strerror})", folder, "choose another --cache"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                raise UsageError("another run is at work on this cache", folder, "let it end, then go on") from error
            # some file systems have no locks: there, nothing is checked
        yield
    finally:
        os.close(handle)
