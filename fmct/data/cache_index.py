"""The index of a cache: what it holds and what was rejected, written by any number of processes at once.

A finished cache has `index.parquet` and `rejects.csv`. A process that adds to a cache keeps its own additions in parts
beside them, `index-<token>.parquet` and `rejects-<token>.csv`, which nobody else writes, so it saves often, quickly and
without a lock; at its end it merges all parts into the two files. Readers take both. What a killed process didn't save
isn't lost either: each volume's file says all that its row does.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow

from fmct.console.files import write_bytes_atomically, write_text_atomically
from fmct.console.lock_file import held
from fmct.data.rejection import REJECTS_COLUMNS
from fmct.data.volume_file import StoredVolume, even_spacing_mm, spacing_xyz_mm

AFFINE_COLUMNS = [f"affine_{row}{column}" for row in range(3) for column in range(4)]
SHAPE_COLUMNS = ["shape_z", "shape_y", "shape_x"]
SPACING_COLUMNS = ["spacing_x_mm", "spacing_y_mm", "spacing_z_mm"]
INDEX_COLUMNS = [
    "checksum", "bytes", "channels", *SHAPE_COLUMNS, "spacing_mm", *SPACING_COLUMNS, *AFFINE_COLUMNS, "cropped_mm",
]  # fmt: skip
INDEX_FILE, REJECTS_FILE, LOCK_FILE = "index.parquet", "rejects.csv", "index.lock"

RejectRow = dict[str, str]
Identity = tuple[int, int]


class CacheIndex:
    """The rows and rejects of a cache's folder: those on disk, and what this process adds.

    Args:
        folder: the cache's folder.

    Raises:
        ValueError: naming the file that can't be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows, self._rejects, _ = read_all(folder)
        self._new_rows: dict[str, Mapping[str, Any]] = {}
        self._own_rows = empty_rows()
        self._own_rejects: dict[str, RejectRow] = {}
        token = secrets.token_hex(8)
        self._row_part, self._reject_part = folder / f"index-{token}.parquet", folder / f"rejects-{token}.csv"

    @property
    def rows(self) -> pd.DataFrame:
        """One row per volume, by scan_id."""
        self._take_in()
        return self._rows

    def _take_in(self) -> None:
        """Add the rows that were recorded one by one to the tables."""
        if self._new_rows:
            new = rows_of(self._new_rows)
            self._own_rows, self._rows = stacked([self._own_rows, new]), stacked([self._rows, new])
            self._new_rows = {}

    @property
    def rejects(self) -> Mapping[str, RejectRow]:
        """What could not be preprocessed, by scan_id: path, code, detail, scan_id."""
        return self._rejects

    def __contains__(self, scan_id: str) -> bool:
        return scan_id in self._new_rows or scan_id in self._rows.index

    def record(self, scan_id: str, row: Mapping[str, Any]) -> None:
        """Enter a volume."""
        self._new_rows[scan_id] = row
        self._rejects.pop(scan_id, None)
        self._own_rejects.pop(scan_id, None)

    def reject(self, scan_id: str, reject: RejectRow) -> None:
        """Enter a scan that could not be preprocessed."""
        self._rejects[scan_id] = self._own_rejects[scan_id] = reject

    def save_additions(self) -> None:
        """Write what this process has added, where other processes see it."""
        self._take_in()
        if len(self._own_rows):
            write_rows(self._own_rows, self._row_part)
        if self._own_rejects or self._reject_part.exists():
            write_reject_rows(self._own_rejects.values(), self._reject_part)

    def merge(self, has_file: Callable[[str], bool], without: Collection[str] = ()) -> None:
        """Write everybody's additions into the two files, and remove the parts.

        Args:
            has_file: tells whether a scan's volume is there; asked of scans that have a row and were rejected too, of
                which only one can hold.
            without: scans to leave out.

        Raises:
            LockedError: when another process is at it for too long; the additions stay in their parts.
        """
        self.save_additions()
        with held(self.folder / LOCK_FILE):
            rows, rejects, parts = read_all(self.folder)
            lost = [scan_id for scan_id in rejects if scan_id in rows.index and not has_file(scan_id)]
            rows = rows.drop(index=rows.index.intersection([*lost, *without])).sort_index()
            rejects = {key: row for key, row in rejects.items() if key not in rows.index and key not in without}
            write_rows(rows, self.folder / INDEX_FILE)
            write_reject_rows(rejects.values(), self.folder / REJECTS_FILE)
            for path, identity in parts.items():
                if identity_of(path) == identity:  # what was written meanwhile is merged another time
                    path.unlink(missing_ok=True)
        self._rows, self._rejects = rows, rejects
        self._own_rows, self._own_rejects = empty_rows(), {}


def index_row(volume: StoredVolume) -> dict[str, Any]:
    """Return a volume's row: `INDEX_COLUMNS` and the facts about the scan that it was made of.

    `affine_rc` is row r, column c of the affine from (x, y, z) to RAS millimeters, whose last row is 0 0 0 1.
    `spacing_mm` is NaN where the axes differ; `bytes` is the size of the file.
    """
    header, (channels, *shape_zyx) = volume.header, (1, *volume.shape)[-4:]
    spacing_xyz = spacing_xyz_mm(np.reshape(header.affine, (4, 4)))
    return {
        "checksum": header.checksum,
        "bytes": volume.size_bytes,
        "channels": channels,
        **dict(zip(SHAPE_COLUMNS, shape_zyx, strict=True)),
        "spacing_mm": even_spacing_mm(spacing_xyz),
        **dict(zip(SPACING_COLUMNS, spacing_xyz, strict=True)),
        **dict(zip(AFFINE_COLUMNS, header.affine, strict=False)),
        "cropped_mm": header.cropped_mm,
        **header.facts,
    }


def read_all(folder: Path) -> tuple[pd.DataFrame, dict[str, RejectRow], dict[Path, Identity]]:
    """Read the index with all parts: rows, rejects by scan_id, and which parts there were.

    Parts come first: one that vanishes meanwhile was merged into the files, which are read after it.

    Raises:
        ValueError: naming the file that can't be read.
    """
    parts: dict[Path, Identity] = {}
    frames: list[pd.DataFrame] = []
    lists: list[pd.DataFrame] = []
    for pattern, read, into in (("index-*.parquet", read_rows, frames), ("rejects-*.csv", read_rejects, lists)):
        found = {path: identity for path in folder.glob(pattern) if (identity := identity_of(path)) is not None}
        for path, identity in sorted(found.items(), key=lambda item: item[1][1]):
            into.append(read(path))
            parts[path] = identity
    rows = stacked([read_rows(folder / INDEX_FILE), *frames])
    rejects: dict[str, RejectRow] = {}
    for frame in (read_rejects(folder / REJECTS_FILE), *lists):
        for row in frame.to_dict("records"):
            rejects[str(row["scan_id"])] = {str(name): str(value) for name, value in row.items()}
    pyarrow.default_memory_pool().release_unused()  # otherwise it keeps twice the index
    return rows, rejects, parts


def identity_of(path: Path) -> Identity | None:
    """Return what changes when a file is replaced, None where there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def read_rows(path: Path) -> pd.DataFrame:
    """Return rows from a file, none where there is no file.

    Raises:
        ValueError: naming the file, when it is damaged or of another version.
    """
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        return empty_rows()
    except (OSError, ValueError) as error:  # pyarrow's are ValueErrors
        raise ValueError(f"{path.name}: {type(error).__name__}") from error
    missing = [name for name in ("scan_id", *INDEX_COLUMNS) if name not in frame and name != frame.index.name]
    if missing:
        more = f"{missing[0]} and {len(missing) - 1} more columns"
        raise ValueError(f"{path.name} lacks {more}: another version wrote it")
    return frame


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Write rows, whole or not at all."""
    write_bytes_atomically(path, rows.to_parquet(compression="zstd"))


def empty_rows() -> pd.DataFrame:
    """Return an index without rows."""
    return pd.DataFrame(columns=INDEX_COLUMNS, index=pd.Index([], name="scan_id", dtype="str"))


def rows_of(rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a table."""
    return pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), name="scan_id", dtype="str"))


def stacked(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of several tables; of a scan in several, those of the last."""
    filled = [frame for frame in frames if len(frame)]
    if len(filled) <= 1:
        return filled[0] if filled else empty_rows()
    rows = pd.concat(filled)
    return rows[~rows.index.duplicated(keep="last")]


def read_rejects(path: Path) -> pd.DataFrame:
    """Return rejects (path, code, detail, scan_id) from a file, none where there is no file.

    Raises:
        ValueError: naming the file, when it is damaged or lacks a column.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        return pd.DataFrame(columns=REJECTS_COLUMNS)
    except (OSError, ValueError) as error:  # pandas' are ValueErrors
        raise ValueError(f"{path.name}: {type(error).__name__}") from error
    missing = [name for name in REJECTS_COLUMNS if name not in frame]
    if missing:
        raise ValueError(f"{path.name} has no column {missing[0]}")
    return frame


def write_reject_rows(rejects: Iterable[RejectRow], path: Path) -> None:
    """Write rejects, whole or not at all."""
    rows = sorted(rejects, key=lambda row: (row["path"], row["scan_id"]))
    write_text_atomically(path, pd.DataFrame(rows, columns=REJECTS_COLUMNS).to_csv(index=False))
