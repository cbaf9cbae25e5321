"""From the headers in a store to the rows of a manifest and of rejects.csv: only what changed is judged again."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from fmct.console.progress import track
from fmct.data.header_store import HeaderStore
from fmct.data.manifest import COLUMNS, with_types
from fmct.data.processes import run_jobs
from fmct.data.rejection import Reject, RejectCode
from fmct.data.selection import Outcome, Policy, StudyFiles, StudyJob, fingerprint_of, outcome_from_json
from fmct.data.study import REJECTED_IMAGES

SLICES_AT_ONCE = 2048
Row = tuple[Any, ...]
"""A row of the manifest, in the order of its columns."""
SCAN_ID, PATH, FORMAT, N_SLICES = (COLUMNS.index(name) for name in ("scan_id", "path", "format", "n_slices"))


def judge_changed(store: HeaderStore, policy: Policy, key: bytes, workers: int) -> None:
    """Judge the studies whose files, or the rules for them, aren't the same as in the last run."""
    for outcome in track(judged(store, policy, key, workers), "judge studies", total=store.count_studies()):
        store.keep_outcome(outcome.study, outcome.fingerprint, outcome.to_json())
    store.save()


def judged(store: HeaderStore, policy: Policy, key: bytes, workers: int) -> Iterator[Outcome]:
    """Yield what became of changed studies, saving after every batch, so that a run which is cut off goes on."""
    for part in run_jobs(study_jobs(store, policy, key), workers):
        yield from part
        store.save()


def study_jobs(store: HeaderStore, policy: Policy, key: bytes) -> Iterator[StudyJob]:
    """Yield jobs of about `SLICES_AT_ONCE` slices for the studies that must be judged."""
    batch: list[StudyFiles] = []
    size = 0
    for study in changed_studies(store, policy):
        batch.append(study)
        size += len(study.headers) or SLICES_AT_ONCE // 16
        if size >= SLICES_AT_ONCE:
            yield StudyJob(batch, policy, store.names, key)
            batch, size = [], 0
    if batch:
        yield StudyJob(batch, policy, store.names, key)


def changed_studies(store: HeaderStore, policy: Policy) -> Iterator[StudyFiles]:
    """Yield the studies of which the store has no outcome yet."""
    for rows in store.studies():
        fingerprint = fingerprint_of(rows.rows, policy)
        if store.outcome(rows.study, fingerprint) is None:
            yield StudyFiles(rows.study, fingerprint, headers=store.headers(rows))
    for row in store.nifti_files():
        fingerprint = fingerprint_of([(row.path, row.content, row.stamp)], policy)
        if store.outcome(f"nifti {row.path}", fingerprint) is None:
            yield StudyFiles(f"nifti {row.path}", fingerprint, nifti=store.nifti_scan(row))


def rows_of(store: HeaderStore, counts: Counter[str]) -> tuple[list[Row], list[Reject]]:
    """Return the manifest's rows by path, and as rejects the scans that are among them already."""
    rows = [as_tuple(row) for content in store.outcomes() for row in outcome_from_json(content)[0]]
    rows.sort(key=lambda row: (row[PATH], row[SCAN_ID]))
    first: dict[str, Row] = {}
    copies = []
    for row in rows:
        if first.setdefault(row[SCAN_ID], row) is not row:
            detail = f"the same as {first[row[SCAN_ID]][PATH]}"
            copies.append(Reject(row[PATH], RejectCode.COPY, detail, row[SCAN_ID]))
            counts[REJECTED_IMAGES] += row[N_SLICES] if row[FORMAT] == "dicom" else 0
    return list(first.values()), copies


def as_tuple(row: dict[str, Any]) -> Row:
    """Return a row's values in the order of the columns; equal texts are kept once, for there may be many rows."""
    values = (row.get(name) for name in COLUMNS)
    return tuple(sys.intern(value) if isinstance(value, str) else value for value in values)


def rejects_of(store: HeaderStore, counts: Counter[str]) -> Iterator[Reject]:
    """Yield the rejects of all studies, and add up what was left out without being lost."""
    for content in store.outcomes():
        _, rejects, more = outcome_from_json(content)
        counts.update(more)
        yield from rejects


def counted(rejects: Iterator[Reject], codes: Counter[RejectCode]) -> Iterator[Reject]:
    """Yield the rejects, counting their codes."""
    for reject in rejects:
        codes[reject.code] += 1
        yield reject


def manifest_of(rows: list[Row], site: str) -> pd.DataFrame:
    """Return the manifest of some rows."""
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).assign(site=site)
    return with_types(frame, Path("the new manifest"))
