"""What each loader process is reading, so that one that dies or hangs can be told by the scan that it was at."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.data import get_worker_info

from fmct.console.errors import FmctError
from fmct.data.dataset import Batch, ScanDataset

PID, ROW, SINCE = range(3)
NOTHING = -1.0
NAMED = 4
SECONDS_BETWEEN_LOOKS = 5.0
LOST = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)(.*)", re.DOTALL)
LATE = re.compile(r"DataLoader timed out after (\d+)")
LOOK = "look at this file (`fmct preprocess --verify` reads it alone)"


class Reading:
    """A table in memory that all processes share: the process of each worker, the row that it reads, since when.

    Args:
        workers: how many there are.
    """

    def __init__(self, workers: int) -> None:
        self.table = torch.full((workers, 3), NOTHING, dtype=torch.float64)
        self.table.share_memory_()  # type: ignore[no-untyped-call]

    def enter(self, worker: int) -> None:
        """Enter a worker, from within it."""
        self.table[worker, PID] = os.getpid()

    @contextmanager
    def row(self, row: int) -> Iterator[int]:
        """Note what this worker reads, for as long as it does; in any other process, nothing."""
        worker = get_worker_info()
        if worker is None:
            yield row
            return
        self.table[worker.id, ROW], self.table[worker.id, SINCE] = row, time.monotonic()
        yield row
        self.table[worker.id, ROW] = NOTHING  # not when it fails: then this says where

    def of(self, pid: int) -> tuple[int, int | None] | None:
        """Return a worker's number and the row that it reads, by its process; None: it isn't one of these."""
        for worker, (known, row, _) in enumerate(self.table.tolist()):
            if known == pid:
                return worker, None if row == NOTHING else int(row)
        return None

    def slowest(self) -> list[tuple[int, int, float]]:
        """Return worker, row and seconds so far of all that read, the slowest first."""
        now = time.monotonic()
        found = [(n, int(row), now - since) for n, (_, row, since) in enumerate(self.table.tolist()) if row != NOTHING]
        return sorted(found, key=lambda one: -one[2])


class Watched(Iterator[Batch]):
    """A loader's batches; an error that says that a worker died, or takes too long, is told by its scans.

    Args:
        batches: of the loader.
        reading: what its workers read.
        data: what they read from.
    """

    def __init__(self, batches: Any, reading: Reading, data: ScanDataset) -> None:
        self.batches = batches
        self.reading = reading
        self.data = data
        if getattr(batches, "_timeout", 0) > 0 and not isinstance(
            batches._try_get_data, partial
        ):  # once for all epochs
            batches._try_get_data = partial(looking_at_workers, batches._try_get_data)

    def __next__(self) -> Batch:
        try:
            batch: Batch = next(self.batches)
        except RuntimeError as error:
            told = lost(error, self.reading, self.data) or self._late(error)
            if told is None:
                raise
            raise told from error
        return batch

    def _late(self, error: RuntimeError) -> FmctError | None:
        match = LATE.match(str(error))
        if match is None:
            return None
        slowest = self.reading.slowest()
        self.end_workers()
        named = ", ".join(f"{self.data.scan_id(row)} ({seconds:.0f} s)" for _, row, seconds in slowest[:NAMED])
        at = f"the loader is at scan {named}" if named else "no loader process reads a scan"
        return FmctError(
            f"no batch came for {match[1]} s; {at}",
            self.data.where(slowest[0][1]) if slowest else "data.workers",
            f"{LOOK}, or at the disk; if that is only slow, raise data.timeout_s",
        )

    def end_workers(self) -> None:
        """End the workers, also those that hear no signal but SIGKILL: the process would wait for them at its end."""
        self.batches._shutdown_workers()
        for worker in self.batches._workers:
            if worker.is_alive():
                worker.kill()
            worker.join()


def looking_at_workers(try_get_data: Callable[[float], tuple[bool, Any]], timeout_s: float) -> tuple[bool, Any]:
    """Wait for a batch in turns, after each of which torch looks whether its workers live.

    With a time-out torch looks only once that is over: a death whose signal is lost, because something else handles
    SIGCHLD, would be noticed as late as a worker that hangs.

    Args:
        try_get_data: of torch's iterator; it raises when a worker is dead.
        timeout_s: how long in all.

    Returns:
        Whether there is a batch, and the batch, as torch's iterator does.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        left = max(0.0, deadline - time.monotonic())
        found = try_get_data(min(left, SECONDS_BETWEEN_LOOKS))
        if found[0] or left <= SECONDS_BETWEEN_LOOKS:
            return found


def lost(error: RuntimeError, reading: Reading, data: ScanDataset) -> FmctError | None:
    """Return the error that names the scan which a loader process was at when it died; None: it says something else.

    Torch raises it from a signal handler, so anywhere.

    Args:
        error: any.
        reading: what a loader's workers read.
        data: what they read from.
    """
    match = LOST.match(str(error))
    if match is None:
        return None
    known = [(pid, reading.of(int(pid))) for pid in match[1].split(", ")]
    for pid, found in known:
        if found is None:
            continue
        worker, row = found
        how = match[2].strip().removesuffix(".").replace("is killed", "was killed")
        at = "between two scans" if row is None else f"at scan {data.scan_id(row)}"
        return FmctError(
            f"loader process {worker} (pid {pid}) {how}, {at}",
            "data.workers" if row is None else data.where(row),
            f"{LOOK}; where the system killed it for lack of memory (dmesg), lower data.workers or prefetch_batches",
        )
    return None


def leave_signals_to_the_trainer() -> None:
    """Let a loader process live on when all processes of a terminal or of a SLURM step are asked to end.

    The process that it feeds finishes its step, saves, and then ends it. A second SIGTERM is meant for it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
