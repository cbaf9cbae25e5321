"""Entering what becomes of scans into a cache while a run goes on, so that little is lost when it is killed.

What was added is saved now and then in a part beside the index, and merged into it at the end. Volumes that were
written after the last time say themselves what their rows do, and are taken in by the next run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fmct.console.lock_file import LockedError
from fmct.data.scan_outcome import Outcome
from fmct.data.volumes import VolumeCache

SECONDS_BETWEEN_SAVES = 10.0
SHARE_OF_TIME = 0.05
"""Of the run, that may be spent on saving."""


class Recorder:
    """Enters outcomes into a cache.

    Args:
        cache: opened in this process; others may add to it at the same time.
    """

    def __init__(self, cache: VolumeCache) -> None:
        self.cache = cache
        self._next_save = time.monotonic() + SECONDS_BETWEEN_SAVES

    def enter(self, outcome: Outcome) -> None:
        """Enter what became of a scan."""
        if outcome.row is not None:
            self.cache.record(outcome.scan_id, outcome.row)
        elif outcome.code is not None:
            self.cache.reject(outcome.scan_id, outcome.path, outcome.code, outcome.detail)
        start = time.monotonic()
        if start >= self._next_save:
            self.cache.save_additions()
            end = time.monotonic()
            self._next_save = end + max(SECONDS_BETWEEN_SAVES, (end - start) / SHARE_OF_TIME)


@contextmanager
def recording(cache: VolumeCache) -> Iterator[Recorder]:
    """Enter outcomes into a cache; its index is put together at the end, however that comes.

    Args:
        cache: opened in this process.
    """
    try:
        yield Recorder(cache)
    finally:
        try:
            cache.save()
        except LockedError as error:  # nothing is lost: every reader takes the additions beside the index too
            print(f"note: the index wasn't put together: {error}", file=sys.stderr)
