"""The same scan under another patient's number: volumes of different splits that show one head in one pose.

Two steps: fingerprints are compared by matrix products, all of one split with all of another; the few pairs that look
alike are read again and compared in detail. N volumes, D length of a fingerprint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import blosc2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmct.console.errors import FmctError
from fmct.console.files import atomic_path
from fmct.console.progress import track
from fmct.data.fingerprint import LENGTH, VERSION, detail, fingerprint, similarity
from fmct.data.presets import require_hu
from fmct.data.processes import run_jobs
from fmct.data.volume_file import read_hu
from fmct.data.volumes import VolumeCache

LOOKS_ALIKE = 0.95
"""Pairs with at least this correlation of fingerprints are looked at in detail: reconstructions of one scan have 0.987
or more (synthetic heads, 1.5 to 5 mm slices, three kernels); of different synthetic heads, one pair in 280 has it."""
SAME_HEAD = 0.95
"""Correlation in detail from which two volumes count as near-duplicates: reconstructions of one synthetic scan have
0.986 or more, different ones 0.929 or less; different real heads below 0.35."""
ROWS_AT_ONCE = 4096
VOLUMES_AT_ONCE = 64
VOLUMES_BETWEEN_SAVES = 20_000
PAIR_COLUMNS = ["split_a", "scan_a", "source_a", "split_b", "scan_b", "source_b", "similarity"]

Place = tuple[Path, float]
Prints = NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """Fingerprints of some scans.

    Attributes:
        scan_ids: (N,) whose.
        values: (N, D) float16, each with mean 0 and norm 1.
        headless: scans in whose volume no head is to be seen.
    """

    scan_ids: tuple[str, ...]
    values: Prints
    headless: tuple[str, ...] = ()


def places_in(cache: VolumeCache) -> dict[str, Place]:
    """Return where each of a cache's volumes is, and the distance of its voxel centers in mm.

    Raises:
        UsageError: when the volumes aren't HU.
    """
    require_hu(cache.settings, cache.folder)
    spacings = cache.index["spacing_mm"].astype(float).to_dict()
    return {str(scan_id): (cache.volume_path(str(scan_id)), spacing) for scan_id, spacing in spacings.items()}


def fingerprints_of(cache: VolumeCache, scan_ids: Sequence[str], workers: int = 0) -> Fingerprints:
    """Take the fingerprints of a cache's volumes; those taken before are read from a file in its folder.

    Args:
        cache: where the volumes are.
        scan_ids: which; all must be in the cache.
        workers: processes; 0 and 1 mean this one.

    Raises:
        FmctError: naming the file, when a volume is missing or damaged.
    """
    path = cache.folder / f"fingerprints-v{VERSION}.parquet"
    known = read_known(path)
    checksums = cache.index.loc[list(scan_ids), "checksum"].astype(str)
    fresh = (known["checksum"].reindex(checksums.index) == checksums).to_numpy()
    missing = [scan_id for scan_id, is_fresh in zip(scan_ids, fresh, strict=True) if not is_fresh]
    places = places_in(cache) if missing else {}
    for start in range(0, len(missing), VOLUMES_BETWEEN_SAVES):
        some = missing[start : start + VOLUMES_BETWEEN_SAVES]
        taken = dict(track(take_all({name: places[name] for name in some}, workers), "fingerprints", total=len(some)))
        new = pd.DataFrame(
            {"checksum": checksums[some].to_numpy(), "fingerprint": [taken[name] for name in some]}, index=some
        )
        known = pd.concat([known.drop(index=some, errors="ignore"), new])
        write_known(known, path)
    contents = dict(zip(scan_ids, known["fingerprint"].reindex(list(scan_ids)), strict=True))
    seen = tuple(scan_id for scan_id, content in contents.items() if content)
    values = np.frombuffer(b"".join(contents[scan_id] for scan_id in seen), np.float16).reshape(-1, LENGTH)
    return Fingerprints(seen, values, tuple(scan_id for scan_id, content in contents.items() if not content))


def read_known(path: Path) -> pd.DataFrame:
    """Return the fingerprints of an earlier run (checksum, fingerprint as float16 bytes) by scan_id."""
    if not path.exists():
        return pd.DataFrame({"checksum": [], "fingerprint": []}, index=pd.Index([], name="scan_id"), dtype=object)
    return pd.read_parquet(path)


def write_known(known: pd.DataFrame, path: Path) -> None:
    """Keep fingerprints beside the volumes; a cache that can't be written to does without."""
    try:
        with atomic_path(path) as temporary:
            known.rename_axis("scan_id").to_parquet(temporary)
    except OSError as error:
        print(f"fingerprints aren't kept, the folder can't be written to ({error.strerror}): {path.parent}")


def take_all(places: Mapping[str, Place], workers: int) -> Iterator[tuple[str, bytes]]:
    """Yield the fingerprint of each volume as float16 bytes, none where no head is to be seen; in any order.

    Args:
        places: where the volumes are, by scan_id.
        workers: processes; 0 and 1 mean this one.

    Raises:
        FmctError: naming the file, when a volume is missing or damaged.
    """
    items = list(places.items())
    chunks = [items[start : start + VOLUMES_AT_ONCE] for start in range(0, len(items), VOLUMES_AT_ONCE)]
    for part in run_jobs(map(PrintJob, chunks), workers if len(chunks) > 1 else 0):
        yield from part


@dataclass(frozen=True)
class PrintJob:
    """Volumes of which one process takes the fingerprints."""

    places: Sequence[tuple[str, Place]]

    def run(self) -> list[tuple[str, bytes]]:
        """Take them."""
        blosc2.set_nthreads(1)
        values = [(name, fingerprint(read_hu(path), spacing_mm)) for name, (path, spacing_mm) in self.places]
        return [(name, b"" if value is None else value.astype(np.float16).tobytes()) for name, value in values]

    def singly(self) -> list[PrintJob]:
        """Return a job for each volume."""
        return [PrintJob([one]) for one in self.places]

    def failed(self, error: BaseException) -> list[tuple[str, bytes]]:
        """Say which volume ended its process; without its fingerprint nothing could be said of it.

        Raises:
            FmctError: always.
        """
        _, (path, _) = self.places[0]
        fix = "delete it, and run `fmct preprocess` again: it makes what lacks"
        raise FmctError(f"reading the cached volume broke off ({type(error).__name__})", path, fix) from error


def alike(one: Prints, other: Prints, least: float = LOOKS_ALIKE) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find the pairs whose fingerprints correlate, block by block: memory doesn't grow with the number of pairs.

    Args:
        one: (N, D) float16.
        other: (M, D) float16.
        least: the correlation from which on a pair counts.

    Returns:
        The pairs' rows in `one` and in `other`.
    """
    rows: list[NDArray[np.intp]] = []
    columns: list[NDArray[np.intp]] = []
    for left in range(0, len(one), ROWS_AT_ONCE):
        block = one[left : left + ROWS_AT_ONCE].astype(np.float32)
        for right in range(0, len(other), ROWS_AT_ONCE):
            product = block @ other[right : right + ROWS_AT_ONCE].astype(np.float32).T
            i, j = np.nonzero(product >= least)
            rows.append(i + left)
            columns.append(j + right)
    return np.concatenate(rows or [np.zeros(0, np.intp)]), np.concatenate(columns or [np.zeros(0, np.intp)])


def near_duplicates(scans: pd.DataFrame, prints: Fingerprints, places: Mapping[str, Place]) -> pd.DataFrame:
    """Find pairs of volumes in different splits that show the same head in the same pose.

    Args:
        scans: manifest rows (`scan_id`, `patient_id`, `split`, `source`), each scan_id once; a patient's own pairs are
            left out.
        prints: of the scans; those without are left out.
        places: each volume's file and spacing in mm.

    Returns:
        `PAIR_COLUMNS`, the most alike first.
    """
    row_of = {scan_id: row for row, scan_id in enumerate(prints.scan_ids)}
    known = scans[scans["scan_id"].isin(row_of)]
    patient, source = (dict(zip(known["scan_id"], known[name], strict=True)) for name in ("patient_id", "source"))
    by_split = {str(split): rows["scan_id"].tolist() for split, rows in known.groupby("split", sort=False)}
    candidates = []
    for split_a, split_b in combinations(by_split, 2):
        ids_a, ids_b = by_split[split_a], by_split[split_b]
        one, other = (prints.values[[row_of[scan_id] for scan_id in ids]] for ids in (ids_a, ids_b))
        for i, j in zip(*alike(one, other), strict=True):
            if patient[ids_a[i]] != patient[ids_b[j]]:
                candidates.append((split_a, ids_a[i], split_b, ids_b[j]))
    found = []
    for split_a, a, split_b, b in track(candidates, "compare pairs that look alike") if candidates else ():
        value = detailed_similarity(places[a], places[b])
        if value >= SAME_HEAD:
            found.append((split_a, a, source[a], split_b, b, source[b], round(value, 4)))
    frame = pd.DataFrame(found, columns=PAIR_COLUMNS)
    return frame.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)


def detailed_similarity(one: Place, other: Place) -> float:
    """Read two volumes and compare them in detail; 0 where one shows no head."""
    details = [detail(read_hu(path), spacing_mm) for path, spacing_mm in (one, other)]
    if details[0] is None or details[1] is None:
        return 0.0
    return similarity(details[0], details[1])
