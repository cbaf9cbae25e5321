"""When scans were made, from DICOM headers or the user's table: kept in memory only, never written.

A manifest has no dates. They are read anew from one slice of each series, or looked up in a table (for NIfTI).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom

from fmct.console.errors import UsageError
from fmct.console.progress import track
from fmct.data.dicom import has_prefix
from fmct.data.dicom_file import quiet_pydicom
from fmct.data.elements import text
from fmct.data.labels.columns import column_names, read_columns
from fmct.data.labels.identifiers import as_in_manifest
from fmct.data.manifest import scan_path
from fmct.data.privacy import uid_hash
from fmct.data.processes import run_jobs
from fmct.data.slice_header import hashed
from fmct.data.walk import files_under

DATE_TAGS = ("StudyDate", "SeriesDate", "AcquisitionDate")
FIRST_YEAR, LAST_YEAR = 1900, 2250  # public tables have dates that were moved by centuries
DATE = r"^(\d{4})([-./]?)(\d{2})\2(\d{2})(?:[T ].*)?$"
FOLDERS_AT_ONCE = 32
TABLE_KEYS = {"path": "path", "scan_id": "scan_id", "study": "study_id"}

Task = tuple[Path, frozenset[str]]


def days(texts: pd.Series[str], name: str, path: Path) -> pd.Series[float]:
    """Turn dates as text into days since 1970.

    Args:
        texts: `2019-04-05`, `20190405`, `2019/04/05` or `2019.04.05`, with or without a time; blank: unknown.
        name: the column, for messages.
        path: the table, for messages.

    Returns:
        float64, NaN where unknown.

    Raises:
        UsageError: naming the line, when a date is written in another way or can't be meant.
    """
    stripped = texts.str.strip()
    distinct = pd.Series(stripped.unique())
    day = parsed(distinct).set_axis(distinct)
    result = stripped.map(day)
    wrong = (result.isna() & (stripped != "")).to_numpy()
    if wrong.any():
        raise UsageError(
            f"{name} is no date, or not between {FIRST_YEAR} and {LAST_YEAR}; {int(wrong.sum())} such lines",
            f"{path}, line {int(wrong.argmax()) + 2}",
            "write dates as YYYY-MM-DD, and leave unknown ones empty",
        )
    return result.astype("float64")


def parsed(texts: pd.Series[str]) -> pd.Series[float]:
    """Return days since 1970, NaN for what is no date between `FIRST_YEAR` and `LAST_YEAR`."""
    parts = texts.str.extract(DATE)
    dates = pd.to_datetime(parts[0] + parts[2] + parts[3], format="%Y%m%d", errors="coerce")
    dates = dates.where(dates.dt.year.between(FIRST_YEAR, LAST_YEAR))
    return (dates - pd.Timestamp(0)) / pd.Timedelta(days=1)


def dates_of_table(manifest: pd.DataFrame, table: Path, key: bytes | None) -> pd.Series[float]:
    """Look up the scans' dates in a table.

    Args:
        manifest: as `read_manifest` returns it.
        table: `.csv` or `.parquet` with the column `date`, and `path`, `scan_id` or `study` (StudyInstanceUIDs, or the
            manifest's study_id).
        key: the secret that studies are hashed with.

    Returns:
        Days since 1970, indexed as the manifest; NaN where the table doesn't know the scan.

    Raises:
        UsageError: when columns are missing, a scan comes twice with different dates, or no scan is in the table.
    """
    there = column_names(table)
    on = next((name for name in TABLE_KEYS if name in there), None)
    if on is None:
        raise UsageError(f"the table needs {', '.join(TABLE_KEYS)} (one of them) and date", table, "add the columns")
    rows: pd.DataFrame = read_columns(table, [on, "date"], identifiers=[on]).to_pandas()
    wanted = manifest[TABLE_KEYS[on]]
    ids = rows[on].str.strip()
    if on == "study":
        ids = ids.map(as_in_manifest(ids, set(wanted), "study", key))
    found = pd.DataFrame({"id": ids, "day": np.floor(days(rows["date"], "date", table))})
    found = found[(found["id"] != "") & found["day"].notna()].drop_duplicates()
    twice = found["id"].duplicated()
    if twice.any():
        where = f"{table}, line {int(found.index[twice][0]) + 2}"
        raise UsageError(f"one {on} comes twice with different dates", where, "keep one row for each")
    if not wanted.isin(found["id"]).any():
        raise UsageError(f"no scan's {on} is in the table", table, "write it as the manifest does, or pass --key-file")
    return wanted.map(found.set_index("id")["day"]).astype("float64")


def dates_of_headers(manifest: pd.DataFrame, root: Path, workers: int = 0) -> pd.Series[float]:
    """Read the scans' dates from one DICOM slice of each series.

    Args:
        manifest: as `read_manifest` returns it.
        root: the folder that its paths are relative to.
        workers: processes; 0 and 1 mean this one.

    Returns:
        Days since 1970, indexed as the manifest; NaN for NIfTI, files that are gone, and headers without a date.

    Raises:
        UsageError: when none of the DICOM scans is on disk.
    """
    scans = manifest[manifest["format"] == "dicom"]
    wanted = {path: frozenset(rows["series_id"]) for path, rows in scans.groupby("path", sort=False)}
    tasks = [(scan_path({"scan_id": "of " + str(path), "path": path}, root), ids) for path, ids in wanted.items()]
    if tasks and not any(path.exists() for path, _ in tasks):
        raise UsageError(
            f"the scans aren't there: neither {scans['path'].iloc[0]} nor the others",
            root,
            "pass the folder that the manifest's paths are relative to as --root (`fmct index` said which)",
        )
    found: dict[tuple[str, str], float] = {}
    path_of = {place: str(path) for path, (place, _) in zip(wanted, tasks, strict=True)}
    for place, dates in track(read_all(tasks, workers), "read dates", total=len(tasks)):
        found |= {(path_of[place], series): day for series, day in dates.items()}
    known = [found.get(pair, np.nan) for pair in zip(manifest["path"], manifest["series_id"], strict=True)]
    return pd.Series(known, index=manifest.index, dtype="float64")


def read_all(tasks: Sequence[Task], workers: int) -> Iterator[tuple[Path, dict[str, float]]]:
    """Yield the dates of some folders' series, in this process or from several; in any order."""
    chunks = [tasks[start : start + FOLDERS_AT_ONCE] for start in range(0, len(tasks), FOLDERS_AT_ONCE)]
    for part in run_jobs(map(DatesJob, chunks), workers if len(chunks) > 1 else 0):
        yield from part


@dataclass(frozen=True)
class DatesJob:
    """Folders whose dates one process reads."""

    tasks: Sequence[Task]

    def run(self) -> list[tuple[Path, dict[str, float]]]:
        """Read them."""
        return [(task[0], dates_in(task)) for task in self.tasks]

    def singly(self) -> list[DatesJob]:
        """Return a job for each folder."""
        return [DatesJob([task]) for task in self.tasks]

    def failed(self, error: BaseException) -> list[tuple[Path, dict[str, float]]]:
        """Return that a folder whose files end the process that reads them tells nothing."""
        return [(path, {}) for path, _ in self.tasks]


def dates_in(task: Task) -> dict[str, float]:
    """Return the days of the series asked for in one folder, by their hashes; only as many files are read as needed."""
    path, wanted = task
    found: dict[str, float] = {}
    if not path.exists():
        return found
    for file in files_under([path]):
        if len(found) == len(wanted):
            break
        series, day = series_and_day(file)
        if series in wanted and series not in found:
            found[series] = day
    return found


def series_and_day(path: Path) -> tuple[str | None, float]:
    """Return a file's series, hashed, and its day; None where it can't be read or is no DICOM file."""
    with quiet_pydicom():
        try:
            if has_prefix(path) is None:
                return None, np.nan
            tags: list[str] = ["SeriesInstanceUID", *DATE_TAGS]
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
            values = [text(dataset, tag) for tag in DATE_TAGS]
            series = hashed(uid_hash, text(dataset, "SeriesInstanceUID"))
        except Exception:  # noqa: BLE001 - a damaged file tells nothing; another slice of its series may
            return None, np.nan
    return series, first_day(values)


def first_day(values: Iterable[str]) -> float:
    """Return the first of some dates that is one, as days since 1970; NaN without any."""
    known = parsed(pd.Series(list(values), dtype="str")).dropna()
    return float(known.iloc[0]) if len(known) else np.nan
