"""That one run at a time works in a folder: a claim beside it, which its holder renews for as long as it lives.

Two jobs that write the same checkpoints would undo each other's work. `lock_file` is for seconds; a claim is held for
days, and survives nobody: a process of this machine that is gone, or the same SLURM job started again on another
machine, gives way at once. Of any other holder only the claim's file can tell: if it isn't renewed while it is watched,
its holder is gone. Watching needs no clock that machines share.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from fmct.console.errors import UsageError
from fmct.console.lock_file import holder_of, is_blank, made, take_away

BEAT_S = 10.0  # between two renewals
WATCHED_S = 45.0  # how long another machine's claim is watched for one
STARTS_AGREE_S = 2.0  # by how much the start of one process may seem to differ


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, which needn't exist yet, while the block runs.

    Raises:
        UsageError: when another run is at work there, naming its process and machine.
    """
    is_new = not folder.parent.exists()
    folder.parent.mkdir(parents=True, exist_ok=True)
    path, own = claim_of(folder), facts()
    while not made(path, own):
        holder = holder_of(path)
        if not is_gone(holder, own, path):
            who = f"process {holder.get('pid', '?')} on {holder.get('host', 'an unknown machine')}"
            raise UsageError(
                f"another run is at work there: {who}, since {holder.get('since', '?')}",
                folder,
                "wait for it or end it, or give this one another name",
            )
        take_away(path, holder)
    mine, done = holder_of(path), threading.Event()
    beating = threading.Thread(target=keep, args=(path, mine, done), daemon=True)
    beating.start()
    try:
        yield
    finally:
        done.set()
        beating.join()
        if holder_of(path) == mine:
            path.unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):  # it isn't empty: the run came to something
                folder.parent.rmdir()


def claim_of(folder: Path) -> Path:
    """Return the claim's file: beside the folder, which may be renamed meanwhile."""
    return folder.with_name(f".{folder.name}.occupied")


def facts() -> dict[str, Any]:
    """Return what tells this process from all others, beside host and pid."""
    return {
        "machine": machine(),
        "started": psutil.Process().create_time(),
        "job": os.environ.get("SLURM_JOB_ID", ""),
        "task": os.environ.get("SLURM_ARRAY_TASK_ID", ""),
    }


def machine() -> str:
    """Return what is the same for two processes if either can see whether the other lives: boot and container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux: the start of the machine tells one from another well enough
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"


def is_gone(holder: Mapping[str, Any], own: Mapping[str, Any], path: Path) -> bool:
    """Tell whether whoever holds a claim doesn't work any more.

    Args:
        holder: what the claim says of its holder.
        own: what it would say of this process.
        path: the claim.
    """
    if holder.get("machine") == own["machine"]:
        return not lives(holder)
    if own["job"] and (holder.get("job"), holder.get("task")) == (own["job"], own["task"]):
        return True  # started again, on another machine: SLURM has ended what was before
    if not path.exists():
        return True
    print(
        f"{path} is of process {holder.get('pid', '?')} on {holder.get('host', 'another machine')}; watching for "
        f"{WATCHED_S:.0f} s whether it still works",
        file=sys.stderr,
        flush=True,
    )
    return not is_renewed(path)


def lives(holder: Mapping[str, Any]) -> bool:
    """Tell whether a process of this machine runs and isn't a later one with the same number."""
    try:
        process = psutil.Process(int(holder["pid"]))
        started = process.create_time()
        same = abs(started - float(holder["started"])) < STARTS_AGREE_S
        return same and bool(process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def is_renewed(path: Path) -> bool:
    """Watch a claim until it is renewed (True), given back or for `WATCHED_S` (False)."""
    try:
        first = path.stat().st_mtime_ns
        deadline = time.monotonic() + WATCHED_S
        while time.monotonic() < deadline:
            time.sleep(min(BEAT_S, WATCHED_S) / 10)
            if path.stat().st_mtime_ns != first and not is_blank(path):
                return True
    except FileNotFoundError:
        return False
    return False


def keep(path: Path, mine: Mapping[str, Any], done: threading.Event) -> None:
    """Renew a claim until the work is done; where somebody else has taken it over, ask this process to end."""
    while not done.wait(BEAT_S):
        try:
            if holder_of(path) == mine:
                os.utime(path)
            elif path.exists():
                print(f"another run has taken over the folder of {path}: this one ends", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGTERM)
                return
        except OSError as error:  # a file system that is away for a while: the work itself says if it can't go on
            print(f"can't renew {path}: {error}", file=sys.stderr, flush=True)
