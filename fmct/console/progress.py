"""Progress of long work: a bar on a terminal, plain lines elsewhere (logs, CI, SLURM)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 15.0


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items, showing on stderr how far the work has come.

    Args:
        items: what is worked on.
        description: what is done, e.g. "preprocess".
        total: how many items there are, where `items` has no length.
    """
    total = total if total is not None else (len(items) if isinstance(items, Sized) else None)
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            yield from progress.track(items, total=total, description=description)
        return
    yield from track_in_lines(items, description, total)


def track_in_lines(items: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    """Yield the items, printing a line every few seconds and one at the end."""
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            of_total = f"/{total}" if total is not None else ""
            left = f", about {(now - start) / done * (total - done):.0f} s left" if total is not None else ""
            print(f"{description}: {done}{of_total} after {now - start:.0f} s{left}", file=sys.stderr, flush=True)
            last = now
    print(f"{description}: {done} in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
