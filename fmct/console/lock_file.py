"""A lock that processes on several machines can share: a file that only one of them can make.

A file made exclusively works on every file system that machines share, where locks of the operating system often don't
reach beyond one machine. Hold it for seconds: what is left by a killed process is taken over only on its own machine,
unless it was killed before it could write its name.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fmct.console.errors import FmctError

SECONDS_BETWEEN_TRIES = 0.1
PATIENCE_S = 60.0


class LockedError(FmctError):
    """Another process holds the lock and didn't give it back in time."""


@contextmanager
def held(path: Path, patience_s: float | None = None) -> Iterator[None]:
    """Hold a lock while the block runs.

    Args:
        path: the lock's file.
        patience_s: how long to wait for another process to give it back; default `PATIENCE_S`.

    Raises:
        LockedError: naming who holds it.
        OSError: when the file can't be made.
    """
    patience_s = PATIENCE_S if patience_s is None else patience_s
    deadline = time.monotonic() + patience_s
    while not made(path):
        holder = holder_of(path)
        late = time.monotonic() > deadline
        if is_dead(holder) or (late and is_blank(path)):
            take_away(path, holder)
        elif late:
            who = f"process {holder.get('pid', '?')} on {holder.get('host', 'an unknown machine')}"
            what = f"{who} has kept the lock for more than {patience_s:g} s (since {holder.get('since', '?')})"
            raise LockedError(what, path, "wait until it is done; if it doesn't run any more, delete this file")
        else:
            time.sleep(SECONDS_BETWEEN_TRIES)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def made(path: Path, facts: Mapping[str, Any] | None = None) -> bool:
    """Make the lock's file, naming this process, with more facts about it; False where there is one already."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": since} | dict(facts or {}), file)
    except OSError as error:  # a full disk: left as it is, a lock that names nobody would hold for ever
        path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    return True


def holder_of(path: Path) -> dict[str, Any]:
    """Return host, pid and since when, as far as the lock's file says so yet."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # given back, or not filled in yet
        return {}
    return values if isinstance(values, dict) else {}


def is_dead(holder: dict[str, Any]) -> bool:
    """Tell whether the holder was a process of this machine that doesn't run any more."""
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it runs, as somebody else's
        return False
    return False


def is_blank(path: Path) -> bool:
    """Tell whether the lock's file is empty: filled in at once, or its maker was killed before it could."""
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return False


def take_away(path: Path, holder: dict[str, Any]) -> None:
    """Remove the lock of a dead process, unless another process did so first and holds it now."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if holder_of(aside) != holder and not path.exists():
        aside.rename(path)
    aside.unlink(missing_ok=True)
