"""What a run has done since the index was last saved: a line for each scan, so that a killed run loses none of it.

The index of a large cache takes seconds to write; a line takes microseconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from fmct.data.rejection import RejectCode
from fmct.data.scan_outcome import Outcome
from fmct.data.volumes import VolumeCache

SECONDS_BETWEEN_SAVES = 60.0
SHARE_OF_TIME = 0.05
"""Of the run, that may be spent on saving."""


class CacheJournal:
    """Enters outcomes into a cache, and keeps them safe on the way.

    Args:
        cache: opened by the only run that works on it.
    """

    def __init__(self, cache: VolumeCache) -> None:
        self.cache = cache
        self.path = cache.folder / "journal.jsonl"
        self._file: IO[str] | None = None
        self._next_save = time.monotonic() + SECONDS_BETWEEN_SAVES
        self._replay()

    def enter(self, outcome: Outcome) -> None:
        """Enter what became of a scan."""
        row = [outcome.scan_id, outcome.path, outcome.row, outcome.code and outcome.code.name, outcome.detail]
        if self._file is None:
            self._file = self.path.open("w", encoding="utf-8")
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._enter(outcome)
        if time.monotonic() >= self._next_save:
            self.save()

    def save(self) -> None:
        """Save the index and the rejects, where there is anything new; then the journal begins anew."""
        if self._file is None:
            return
        start = time.monotonic()
        self.cache.save()
        self._file.close()
        self._file = None
        self.path.unlink()
        end = time.monotonic()
        self._next_save = end + max(SECONDS_BETWEEN_SAVES, (end - start) / SHARE_OF_TIME)

    def _replay(self) -> None:
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                scan_id, path, row, code, detail = json.loads(line)
            except ValueError:
                break  # the last line of a run that was killed while it wrote it: that scan is made again
            self._enter(Outcome(scan_id, path, row, code and RejectCode[code], detail))
        self.cache.save()
        self.path.unlink()

    def _enter(self, outcome: Outcome) -> None:
        if outcome.row is not None:
            self.cache.record(outcome.scan_id, outcome.row)
        elif outcome.code is not None:
            self.cache.reject(outcome.scan_id, outcome.path, outcome.code, outcome.detail)


@contextmanager
def journal_of(cache: VolumeCache) -> Iterator[CacheJournal]:
    """Open the journal of a cache, entering what a killed run has left in it; save and close it at the end.

    Args:
        cache: opened by the only run that works on it.
    """
    journal = CacheJournal(cache)
    try:
        yield journal
    finally:
        journal.save()
