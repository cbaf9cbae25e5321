"""Folders that hold more scans than a batch: read once, by all workers, the headers kept on disk meanwhile."""

from __future__ import annotations

import contextlib
import pickle
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from fmct.data.cache_building import Batch, Row, rules_of
from fmct.data.clusters import Workers
from fmct.data.dicom import UNSHARED_KEY, SliceHeader
from fmct.data.manifest import scan_path
from fmct.data.scan import Scan
from fmct.data.series import looked_at, study_of
from fmct.data.study import judge_study

SLICES_IN_BATCH = 8192
"""Headers are sent with a batch; so many are a few megabytes."""


def batches_of_folder(whole: Batch, workers: Workers, largest: int) -> Iterator[Batch]:
    """Divide the scans of one folder into batches that know their files.

    Args:
        whole: all rows of the folder.
        workers: who reads the headers.
        largest: scans in a batch.
    """
    path = scan_path(whole.rows[0], whole.root)
    if not path.is_dir():
        yield whole
        return
    left = {str(row["scan_id"]): row for row in whole.rows}
    of_series = {str(row["series_id"]): name for name, row in left.items() if row.get("series_id")}
    rows: list[Row] = []
    scans: list[Scan] = []
    slices = 0
    for of_study in studies_in(path, whole, workers):
        for scan, row in taken(of_study, left, of_series):
            rows.append(row)
            scans.append(scan)
            slices += len(scan.slices)
            if len(rows) >= largest or slices >= SLICES_IN_BATCH:
                yield replace(whole, rows=rows, found={path: scans})
                rows, scans, slices = [], [], 0
    rows += left.values()  # their scans aren't there, and they are rejected for that
    if rows:
        yield replace(whole, rows=rows, found={path: scans})


def taken(scans: Sequence[Scan], left: dict[str, Row], of_series: Mapping[str, str]) -> Iterator[tuple[Scan, Row]]:
    """Yield the scans of a study that rows mean, as `matching_scan` tells: by scan_id, else by a series that has one.

    Args:
        scans: of the study.
        left: rows by scan_id that no scan was found for yet; those that are found are taken out.
        of_series: the scan_id of the row that names a series.
    """
    series = Counter(str(scan.facts["series_id"]) for scan in scans)
    for scan in scans:
        series_id = str(scan.facts["series_id"])
        of_row = of_series.get(series_id, "") if series[series_id] == 1 else ""
        name = scan.scan_id if scan.scan_id in left else of_row
        if name in left:
            yield scan, left.pop(name)


def studies_in(path: Path, whole: Batch, workers: Workers) -> Iterator[list[Scan]]:
    """Yield the usable DICOM series in a folder, study by study."""
    rules = rules_of(whole.rows[0])
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(sqlite3.connect(f"{folder}/headers")) as database:
        database.execute("create table headers (study text, content blob)")
        for _, seen in looked_at([path], UNSHARED_KEY, workers, whole.root.resolve(), pixels=True):
            if isinstance(seen, list):
                database.executemany(
                    "insert into headers values (?, ?)", [(study_of(header), pickle.dumps(header)) for header in seen]
                )
        stored = database.execute("select study, content from headers order by study, rowid")
        for _, of_study in groupby(stored, key=lambda row: row[0]):
            headers: list[SliceHeader] = [pickle.loads(content) for _, content in of_study]  # noqa: S301 - ours
            yield judge_study(headers, rules).scans
