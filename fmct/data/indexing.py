"""From the headers in a store to the rows of a manifest and of rejects.csv: only what changed is judged again."""

from __future__ import annotations

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
from fmct.data.selection import Policy, StudyFiles, StudyJob, fingerprint_of, outcome_from_json

SLICES_AT_ONCE = 2048


def judge_changed(store: HeaderStore, policy: Policy, key: bytes, workers: int) -> None:
    """Judge the studies whose files, or the rules for them, aren't the same as in the last run."""
    total = store.count_studies() + sum(1 for _ in store.nifti_scans())
    judged = (outcome for part in run_jobs(study_jobs(store, policy, key), workers) for outcome in part)
    for outcome in track(judged, "judge studies", total=total):
        store.keep_outcome(outcome.study, outcome.fingerprint, outcome.to_json())
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
    for scan in store.nifti_scans():
        written = store.names.written(scan.path)
        fingerprint = fingerprint_of([(written, scan.scan_id)], policy)
        if store.outcome(f"nifti {written}", fingerprint) is None:
            yield StudyFiles(f"nifti {written}", fingerprint, nifti=scan)


def rows_of(store: HeaderStore) -> tuple[list[dict[str, Any]], list[Reject]]:
    """Return the manifest's rows by path, and as rejects the scans that are among them already."""
    rows = [row for content in store.outcomes() for row in outcome_from_json(content)[0]]
    rows.sort(key=lambda row: (row["path"], row["scan_id"]))
    first: dict[str, dict[str, Any]] = {}
    copies = []
    for row in rows:
        if first.setdefault(row["scan_id"], row) is not row:
            detail = f"the same as {first[row['scan_id']]['path']}"
            copies.append(Reject(row["path"], RejectCode.COPY, detail, row["scan_id"]))
    return list(first.values()), copies


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


def manifest_of(rows: list[dict[str, Any]], site: str) -> pd.DataFrame:
    """Return the manifest of some rows."""
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).assign(site=site)
    return with_types(frame, Path("the new manifest"))
