"""Checking all volumes of a cache against what was written, in as many processes as wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from fmct.console.errors import FmctError
from fmct.console.progress import track
from fmct.data.processes import run_jobs
from fmct.data.volumes import VolumeCache

VOLUMES_AT_ONCE = 64
LISTED = 20


@dataclass(frozen=True)
class Verdict:
    """What came of one volume: an empty problem is none."""

    scan_id: str
    problem: str = ""


@dataclass(frozen=True)
class Verification:
    """Some volumes that one process checks.

    Attributes:
        cache: where they are.
        expected: scan_id and SHA-256 by the index.
    """

    cache: VolumeCache
    expected: Sequence[tuple[str, str]]

    def run(self) -> list[Verdict]:
        """Check them."""
        return [Verdict(scan_id, self._problem(scan_id, checksum)) for scan_id, checksum in self.expected]

    def singly(self) -> list[Verification]:
        """Return a job for each volume."""
        return [replace(self, expected=[one]) for one in self.expected]

    def failed(self, error: BaseException) -> list[Verdict]:
        """Return the verdict on a volume that killed the process that read it."""
        problem = f"kills the process that reads it ({type(error).__name__})"
        return [Verdict(scan_id, f"the cached volume {problem}") for scan_id, _ in self.expected]

    def _problem(self, scan_id: str, checksum: str) -> str:
        try:
            self.cache.check(scan_id, checksum)
        except FmctError as error:
            return error.what
        return ""


@dataclass(frozen=True)
class Verified:
    """What came of a manifest's scans.

    Attributes:
        folder: the cache's folder.
        good: how many volumes are as they were written.
        damaged: what is wrong with the others.
        missing: scans without a row in the index that weren't rejected: not preprocessed yet.
        rejected: how many scans were rejected by preprocessing.
    """

    folder: Path
    good: int
    damaged: list[Verdict] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    rejected: int = 0

    def described(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**asdict(self), "folder": str(self.folder)}

    def text(self) -> str:
        """Return it in words, the first few of each kind by name."""
        lines = [f"{self.good} volumes are as they were written, in {self.folder}"]
        for kind, found in (
            ("damaged or gone", [f"{one.scan_id}: {one.problem}" for one in self.damaged]),
            ("not preprocessed yet", self.missing),
        ):
            if found:
                lines += [f"{len(found)} {kind}:", *(f"  {one}" for one in found[:LISTED])]
                lines += [f"  ... and {len(found) - LISTED} more (--json lists all)"] * (len(found) > LISTED)
        if self.rejected:
            lines.append(f"{self.rejected} were rejected by preprocessing")
        if self.damaged:
            lines.append("the damaged ones are out of the index now; their files are still there")
        if self.damaged or self.missing:
            lines.append("the same command without --verify makes what lacks")
        return "\n".join(lines)


def verify(cache: VolumeCache, scan_ids: Sequence[str], workers: int = 0) -> Verified:
    """Check the volumes of some scans: bytes, voxels, settings, and the checksum in the index.

    What is damaged or gone is taken out of the index, so that training doesn't run into it and the next run of
    `fmct preprocess` makes it anew; no file is removed.

    Args:
        cache: the cache.
        scan_ids: those that it should hold.
        workers: processes; 0 and 1 mean this one.
    """
    wanted = pd.Index(scan_ids).drop_duplicates()
    listed = wanted[wanted.isin(cache.index.index)]
    rejected = cache.rejected_ids()
    missing = [str(scan_id) for scan_id in wanted.difference(listed, sort=False) if scan_id not in rejected]
    expected = list(zip(map(str, listed), cache.index["checksum"].loc[listed].astype(str), strict=True))
    verdicts = track(verdicts_of(cache, expected, workers), "verify", total=len(expected))
    damaged = sorted((one for one in verdicts if one.problem), key=lambda verdict: verdict.scan_id)
    if damaged:
        cache.forget([verdict.scan_id for verdict in damaged])
    good, refused = len(expected) - len(damaged), len(wanted) - len(listed) - len(missing)
    return Verified(cache.folder, good, damaged, missing, refused)


def verdicts_of(cache: VolumeCache, expected: Sequence[tuple[str, str]], workers: int) -> Iterator[Verdict]:
    """Yield what came of each volume, as it becomes known."""
    starts = range(0, len(expected), VOLUMES_AT_ONCE)
    jobs = (Verification(cache, expected[start : start + VOLUMES_AT_ONCE]) for start in starts)
    for verdicts in run_jobs(jobs, workers):
        yield from verdicts
