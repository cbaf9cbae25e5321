"""Work in a process of its own, and the most memory that a process held: what a measurement of memory needs."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def in_fresh_process(work: Callable[[], T]) -> T:
    """Do something in a new process, and return what it returns."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work).result()


def own_peak_mb() -> float:
    """Return the most memory that this process ever held, in MB, Python and libraries included."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory in: Linux carries it over to a new program
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
