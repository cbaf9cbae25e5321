"""CQ500: 14 findings in 491 head CTs, each read by three radiologists (Chilamkurthy et al. 2018, Lancet 392:2388).

`reads.csv` has a row for each case and a column `R1:ICH` for each reader and finding. A case has many spellings:
`CQ500-CT-10` there and as PatientID, `CQ500CT10 CQ500CT10` as the folder, `CQ500-CT-10.zip` as the archive.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmct.console.errors import UsageError, nearest
from fmct.data.labels.columns import column_names, read_columns
from fmct.data.labels.source import SOFT_PREFIX, SourceLabels, shown
from fmct.data.manifest import LABEL_PREFIX
from fmct.data.privacy import keyed_id

Vote = Literal["majority", "any", "unanimous", "mean"]
CASE = re.compile(r"(?<![A-Za-z0-9])CQ500[-_ ]?CT[-_ ]?0*(\d+)(?![A-Za-z0-9])", re.IGNORECASE)
READ = re.compile(r"(R\d+):(.+)")
KINDS_OF_BLEED = ("IPH", "IVH", "SDH", "EDH", "SAH")
FEWEST_READS = 2


@dataclass(frozen=True, eq=False)
class Reads:
    """What the readers said.

    Attributes:
        cases: (N,) the cases' numbers.
        findings: the F names.
        marks: (N, readers, F) 1, 0 or NaN for a blank.
    """

    cases: NDArray[np.int64]
    findings: tuple[str, ...]
    marks: NDArray[np.float64]


def read_reads(path: Path) -> Reads:
    """Read `reads.csv`.

    Raises:
        UsageError: when it has no columns `name` and `R1:FINDING`, a case comes twice with different reads, a name is
            no case's, or a read is neither 1, 0 nor blank.
    """
    columns = [name for name in column_names(path) if READ.fullmatch(name)]
    pairs = [READ.fullmatch(name) for name in columns]
    readers = list(dict.fromkeys(match[1] for match in pairs if match))
    findings = tuple(dict.fromkeys(match[2] for match in pairs if match))
    if not columns:
        raise UsageError("the table has no columns such as R1:ICH", path, "give CQ500's reads.csv as --table")
    wanted = [f"{reader}:{finding}" for reader in readers for finding in findings]
    rows: pd.DataFrame = read_columns(path, ["name", *wanted]).to_pandas().drop_duplicates()
    matches = [CASE.fullmatch(name.strip()) for name in rows["name"]]
    for row, match in zip(rows.index, matches, strict=True):
        if match is None:
            raise UsageError("the name is no case of CQ500, such as CQ500-CT-10", f"{path}, line {row + 2}", "mend it")
    cases = np.array([int(match[1]) for match in matches if match], dtype=np.int64)
    twice = pd.Series(cases).duplicated()
    if twice.any():
        where = f"{path}, line {rows.index[int(twice.to_numpy().argmax())] + 2}"
        raise UsageError("a case comes twice with different reads", where, "keep one row per case")
    marks = np.stack([marks_of(rows[name], name, path) for name in wanted], axis=1)
    return Reads(cases, findings, marks.reshape(len(rows), len(readers), len(findings)))


def marks_of(column: pd.Series[str], name: str, path: Path) -> NDArray[np.float64]:
    """Return one reader's marks of one finding: 1, 0, NaN for a blank."""
    text = column.str.strip()
    numbers = pd.to_numeric(text.where(text != ""), errors="coerce").to_numpy(dtype=float)
    wrong = (text != "").to_numpy() & ~np.isin(numbers, [0, 1])
    if wrong.any():
        row = int(wrong.argmax())
        raise UsageError(
            f"{name} is {shown(column.iloc[row])}; a read is 1, 0 or blank",
            f"{path}, line {column.index[row] + 2}",
            "mend it",
        )
    return numbers


def voted(marks: NDArray[np.float64], vote: Vote) -> NDArray[np.float64]:
    """Let the readers vote, those who left a blank aside.

    Args:
        marks: (N, readers, F) 1, 0 or NaN.
        vote: `any`: 1 if one reader marks it; `unanimous`: 1 if all do; `majority` and `mean`: 1 if more than half do,
            unknown when they are divided evenly.

    Returns:
        (N, F) 1, 0, or NaN (unknown) with fewer than two reads.
    """
    share, reads = share_of(marks), (~np.isnan(marks)).sum(axis=1)
    if vote == "any":
        result = (share > 0).astype(float)
    elif vote == "unanimous":
        result = (share == 1).astype(float)
    else:
        result = np.where(share == 0.5, np.nan, (share > 0.5).astype(float))
    result[reads < FEWEST_READS] = np.nan
    return result


def share_of(marks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of readers who mark a finding, (N, F); NaN with fewer than two reads."""
    reads = (~np.isnan(marks)).sum(axis=1)
    positive = np.nansum(marks, axis=1)
    return np.where(reads >= FEWEST_READS, (positive / np.maximum(reads, 1)).round(6), np.nan)


def cases_of(manifest: pd.DataFrame, cases: Sequence[int], key: bytes | None) -> tuple[pd.Series[int], Counter[str]]:
    """Say which case each scan is of, by its PatientID's hash and by its path.

    Args:
        manifest: as `read_manifest` returns it.
        cases: the numbers whose hashes are tried.
        key: the secret of the hashes; None: paths alone.

    Returns:
        Indexed as the manifest, the case's number or <NA>; and how they were found.

    Raises:
        UsageError: naming the scan, when its path and its patient, or two parts of its path, name different cases.
    """
    by_hash = hashes_of(cases, key) if key is not None else {}
    found: list[int | None] = []
    counts: Counter[str] = Counter()
    for scan_id, patient, path in zip(manifest["scan_id"], manifest["patient_id"], manifest["path"], strict=True):
        named = {int(number) for number in CASE.findall(path)}
        case = by_hash.get(patient)
        candidates = named | ({case} if case is not None else set())
        if len(candidates) > 1:
            listed = " and ".join(f"CQ500-CT-{number}" for number in sorted(candidates))
            raise UsageError(
                f"scan {scan_id} is of {listed}: "
                + ("its path and its patient differ" if case is not None else "so says its path"),
                str(manifest.attrs.get("source", "the manifest")),
                "correct the folder's name, or leave the scan out",
            )
        found.append(next(iter(candidates), None))
        counts["scans known by their patient"] += case is not None
        counts["scans known by their path"] += bool(named)
    return pd.Series(found, index=manifest.index, dtype="Int64"), counts


def hashes_of(cases: Sequence[int], key: bytes) -> dict[str, int]:
    """Return the case of each hash that one of its spellings has."""
    return {
        keyed_id("patient", spelling, key): case
        for case in cases
        for spelling in (f"CQ500-CT-{case}", f"CQ500CT{case}", f"CQ500CT{case} CQ500CT{case}", f"CQ500-CT-{case}.zip")
    }


def labels_of_cq500(
    manifest: pd.DataFrame, table: Path, vote: Vote = "majority", columns: Sequence[str] = (), key: bytes | None = None
) -> SourceLabels:
    """Look up what the readers said about a manifest's scans.

    Args:
        manifest: as `read_manifest` returns it; other data sets' scans stay without labels.
        table: `reads.csv`.
        vote: see `voted`; `mean` adds `soft:NAME`, the share of readers who mark the finding.
        columns: findings; empty: all that the table has.
        key: the secret that patients were hashed with.

    Returns:
        Labels and counts. Reads that contradict themselves (a kind of bleed without ICH) stay as they are, counted.

    Raises:
        UsageError: as `read_reads` and `cases_of`, and when no scan is of a case in the table.
    """
    reads = read_reads(table)
    for name in columns:
        if name not in reads.findings:
            guess = nearest(name, reads.findings)
            fix = f"did you mean {guess}?" if guess else f"use {', '.join(reads.findings)}"
            raise UsageError(f"no finding {name}", table, fix)
    cases, counts = cases_of(manifest, reads.cases.tolist(), key)
    rows = pd.Index(reads.cases).get_indexer(pd.Index(cases.fillna(-1)))
    if (rows < 0).all():
        raise UsageError(
            "no scan is of a case in the table: neither a path nor a patient names one",
            str(manifest.attrs.get("source", "the manifest")),
            "pass the --key-file that `fmct index` used, or name folders as downloaded (CQ500CT10 CQ500CT10)",
        )
    names = list(columns) or list(reads.findings)
    picks = [reads.findings.index(name) for name in names]
    known = rows[:, None] >= 0
    hard = np.where(known, voted(reads.marks, vote)[rows][:, picks], np.nan)
    values = pd.DataFrame(hard, manifest.index, [LABEL_PREFIX + name for name in names]).astype("Int8")
    if vote == "mean":
        values[[SOFT_PREFIX + name for name in names]] = np.where(known, share_of(reads.marks)[rows][:, picks], np.nan)
    counts["scans of cases that the table doesn't have"] = int((cases.notna() & (rows < 0)).sum())
    counts["cases of the table without a scan"] = len(set(reads.cases.tolist()) - set(cases.dropna().tolist()))
    counts["blank reads, left out of the vote"] = int(np.isnan(reads.marks).sum())
    counts["reads of a bleed's kind without ICH, kept as they are"] = without_ich(reads)
    return SourceLabels(values, counts)


def without_ich(reads: Reads) -> int:
    """Count the reads (a case, by a reader) that mark a kind of bleed but no bleed."""
    kinds = [reads.findings.index(name) for name in KINDS_OF_BLEED if name in reads.findings]
    if "ICH" not in reads.findings or not kinds:
        return 0
    any_kind = (reads.marks[:, :, kinds] == 1).any(axis=2)
    return int((any_kind & (reads.marks[:, :, reads.findings.index("ICH")] == 0)).sum())
