"""Whether splits are disjoint, across manifests: by identifier, and by what the volumes show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from fmct.console.errors import UsageError
from fmct.data.manifest_checks import LEAK_COLUMNS, shared_between_splits
from fmct.data.near_duplicates import PAIR_COLUMNS, Fingerprints, Place, fingerprints_of, near_duplicates, places_in
from fmct.data.volumes import VolumeCache


@dataclass(frozen=True, eq=False)
class Findings:
    """What a check found.

    Attributes:
        splits: how many scans and patients are in each.
        total: how many there are altogether.
        shared: identifiers in two splits, as `shared_between_splits` returns them.
        duplicates: near-duplicate volumes, as `near_duplicates` returns them.
        volumes: how many volumes were compared; None where no cache was given.
        missing: scans that have no volume in the caches.
        headless: volumes in which no head is to be seen.
    """

    splits: dict[str, dict[str, int]]
    total: dict[str, int]
    shared: pd.DataFrame
    duplicates: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=PAIR_COLUMNS))
    volumes: int | None = None
    missing: int = 0
    headless: int = 0

    @property
    def disjoint(self) -> bool:
        """Whether nothing is in two splits, as far as was looked."""
        return self.shared.empty and self.duplicates.empty

    def sentence(self) -> str:
        """Say what was proven, and what wasn't looked at."""
        names = ", ".join(self.splits)
        total = f"{self.total['scans']} scans of {self.total['patients']} patients"
        looked = f"{total} in {len(self.splits)} splits ({names})"
        if not self.disjoint:
            return (
                f"NOT disjoint: {len(self.shared)} identifiers and {len(self.duplicates)} pairs of near-duplicate "
                f"volumes are in two splits, among {looked}"
            )
        proven = f"disjoint: among {looked}, no patient, study, series or scan is in two"
        if self.volumes is None:
            return f"{proven}; volumes were not compared (no --cache)"
        left_out = [
            f"{count} {what}"
            for count, what in (
                (self.missing, "without a volume in the cache"),
                (self.headless, "without a visible head"),
            )
            if count
        ]
        rest = f"; not compared: {' and '.join(left_out)}" if left_out else ""
        return f"{proven}, and no two of {self.volumes} volumes in different splits are near-duplicates{rest}"


def splits_of(manifests: Sequence[pd.DataFrame]) -> tuple[list[pd.DataFrame], list[str]]:
    """Prepare manifests for a check.

    Args:
        manifests: as `read_manifest` returns them.

    Returns:
        The rows that are in a split, and notes: a manifest without any split counts as `pretrain`; in one that has
        some, rows without are in none, and nothing is said about them.
    """
    frames, notes = [], []
    for manifest in manifests:
        source = manifest.attrs.get("source", "the manifest")
        without = manifest["split"] == ""
        if without.all():
            frame = manifest.assign(split="pretrain")
            notes.append(f"{source} has no splits: all its {len(manifest)} scans count as pretrain")
        else:
            frame = manifest[~without]
            if without.any():
                notes.append(f"{source}: {int(without.sum())} scans have no split and weren't looked at")
        frame.attrs = {"source": source}
        frames.append(frame)
    return frames, notes


def check_disjoint(frames: Sequence[pd.DataFrame], caches: Sequence[VolumeCache] = (), workers: int = 0) -> Findings:
    """Look for what is in two splits.

    Args:
        frames: manifests' rows that are in a split, as `splits_of` returns them.
        caches: where volumes are; none: only identifiers are compared.
        workers: processes that look at volumes.

    Raises:
        UsageError: when all scans are in one split, so that nothing could be proven.
        FmctError: naming the file, when a volume is damaged.
    """
    parts = [
        frame[["scan_id", "patient_id", "split"]].assign(source=str(frame.attrs.get("source", "the manifest")))
        for frame in frames
    ]
    rows = pd.concat(parts, ignore_index=True)
    splits = {str(split): sizes(part) for split, part in rows.groupby("split", sort=False)}
    if len(splits) < 2:
        raise UsageError(
            f"all scans are in one split ({', '.join(splits)}): there is nothing to compare",
            ", ".join(dict.fromkeys(rows["source"])),
            "assign splits with `fmct split` first; a manifest without any counts as pretrain",
        )
    shared = shared_between_splits(*frames)[LEAK_COLUMNS]
    if not caches:
        return Findings(splits, sizes(rows), shared)
    scans = rows.drop_duplicates("scan_id", ignore_index=True)
    places: dict[str, Place] = {}
    by_cache = []
    for cache in caches:
        here = places_in(cache)
        wanted = [name for name in scans["scan_id"] if name in here and name not in places]
        by_cache.append(fingerprints_of(cache, wanted, workers))
        places |= {name: here[name] for name in wanted}
    prints = Fingerprints(
        tuple(name for part in by_cache for name in part.scan_ids),
        np.concatenate([part.values for part in by_cache]),
        tuple(name for part in by_cache for name in part.headless),
    )
    duplicates = near_duplicates(scans, prints, places)
    missing = len(scans) - len(places)
    return Findings(splits, sizes(rows), shared, duplicates, len(prints.scan_ids), missing, len(prints.headless))


def sizes(rows: pd.DataFrame) -> dict[str, int]:
    """Count scans and patients, each once."""
    return {"scans": int(rows["scan_id"].nunique()), "patients": int(rows["patient_id"].nunique())}
