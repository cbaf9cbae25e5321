"""Work in a process of its own, and the most memory that a process held: what a measurement of memory needs."""

from __future__ import annotations

import multiprocessing
import re
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_fresh_process(work: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
    """Do something in a new process, whose peak memory is its own, and return what it returns."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, fresh, start_processes_by, (multiprocessing.get_start_method(),)) as pool:
        return pool.submit(work, *arguments, **more).result()


def start_processes_by(method: str) -> None:
    """Let this process start others, such as a loader's workers, as the one before it does."""
    multiprocessing.set_start_method(method, force=True)


def peak_memory() -> int:
    """Return the most memory that this process ever had, in bytes, Python and libraries included."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, getrusage counts what the process was started from
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii"))[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
