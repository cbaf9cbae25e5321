"""What a run of `fmct preprocess` has done, in words and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmct.data.rejection import RejectCode
from fmct.data.scan_outcome import Outcome


@dataclass
class Tally:
    """What a run has done.

    Attributes:
        folder: of the cache.
        where: where the work ran.
        cached: how many volumes were made.
        codes: why scans were rejected.
        cached_before: how many were there.
        rejected_before: how many stay rejected.
        seconds: how long it took.
        to_do: how many scans the run is about.
        bytes_cached: of the volumes made.
    """

    folder: str
    where: str
    cached: int = 0
    codes: Counter[RejectCode] = field(default_factory=Counter)
    cached_before: int = 0
    rejected_before: int = 0
    seconds: float = 0.0
    to_do: int = 0
    bytes_cached: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count what became of a scan."""
        if outcome.code is None:
            self.cached += 1
            self.bytes_cached += int(outcome.row["bytes"]) if outcome.row else 0
        else:
            self.codes[outcome.code] += 1

    def bytes_needed(self) -> float:
        """Return about how much the scans that are left will take; 0 where nothing tells."""
        left = self.to_do - self.cached - self.codes.total()
        return left * self.bytes_cached / self.cached if self.cached else 0.0

    @property
    def scans_per_s(self) -> float:
        """How many scans were worked on in a second."""
        return round((self.cached + self.codes.total()) / self.seconds, 2) if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return it for a script to read."""
        return {
            "folder": self.folder,
            "cached": self.cached,
            "rejected": {code.name: count for code, count in self.codes.items()},
            "cached_before": self.cached_before,
            "rejected_before": self.rejected_before,
            "seconds": round(self.seconds, 1),
            "scans_per_s": self.scans_per_s,
            "where": self.where,
        }

    def print(self) -> None:
        """Print it."""
        if self.cached_before:
            print(f"{self.cached_before:,} scans were in the cache already")
        if self.rejected_before:
            print(f"{self.rejected_before:,} scans were rejected before and stay so (--retry-rejected tries again)")
        speed = f" in {self.seconds:.1f} s, {self.scans_per_s:g} scans/s, by {self.where}" if self.seconds else ""
        print(f"{self.cached:,} scans cached{speed} -> {self.folder}")
        if self.codes:
            from fmct.index import print_codes

            print_codes(self.codes, Path(self.folder) / "rejects.csv")
