"""The manifest: one row per scan, as CSV or Parquet, and the one way to read, check and write it.

Types after reading, whatever the file: text columns hold strings ("" where unknown, and `00123` stays `00123`); numbers
are float64 with NaN where unknown; `n_slices`, `contrast` and every `label:NAME` are nullable integers (pandas Int8 and
Int32) with <NA> where unknown. Known columns that the file lacks are added empty, columns of one's own are kept.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.lib

from fmct.console.errors import UsageError, nearest, require_file
from fmct.console.files import atomic_path
from fmct.data.manifest_checks import SPLITS as SPLITS
from fmct.data.manifest_checks import check_manifest
from fmct.data.manifest_checks import check_splits as check_splits
from fmct.data.path_names import PathNames, is_redacted
from fmct.data.privacy import read_key

LABEL_PREFIX = "label:"
REQUIRED_COLUMNS = ("scan_id", "path", "format", "patient_id")
TEXT_COLUMNS = (
    *REQUIRED_COLUMNS,
    "study_id",
    "series_id",
    "split",
    "site",
    "manufacturer",
    "model",
    "kernel",
    "sex",
    "skipped_rules",
)
INTEGER_COLUMNS = {"n_slices": "Int32", "contrast": "Int8"}
NUMBER_COLUMNS = (
    "spacing_x_mm",
    "spacing_y_mm",
    "spacing_z_mm",
    "slice_gap_max_mm",
    "gantry_tilt_deg",
    "kvp",
    "age",
)
COLUMNS = (
    "scan_id", "path", "format", "patient_id", "study_id", "series_id", "split", "site", "n_slices",
    "spacing_x_mm", "spacing_y_mm", "spacing_z_mm", "slice_gap_max_mm", "gantry_tilt_deg",
    "manufacturer", "model", "kernel", "kvp", "contrast", "age", "sex", "skipped_rules",
)  # fmt: skip


def read_manifest(path: str | Path, root: str | Path | None = None) -> pd.DataFrame:
    """Read and check a manifest.

    Args:
        path: a `.csv` or `.parquet` file.
        root: the folder that the `path` column is relative to; None means the manifest's own folder.

    Returns:
        One row per scan with the columns of `COLUMNS`, then any others, then labels. `frame.attrs` holds "source" and
        "root", as text.

    Raises:
        UsageError: naming the file, the row and what to do, when the file is missing, empty or of another type, a
            column is missing, a scan_id comes twice, a patient is in two splits, a split or label value is unknown, or
            a path leaves the root. Links are followed, and checked, by `scan_path`: here nothing on disk is touched.
    """
    path = Path(path)
    frame = read_table(path)
    missing = [name for name in REQUIRED_COLUMNS if name not in frame.columns]
    if missing:
        guess = nearest(missing[0], [str(name) for name in frame.columns])
        hint = f"rename the column {guess!r}" if guess else "`fmct index` writes a manifest with all columns"
        raise UsageError(f"the manifest has no column {missing[0]!r}", path, hint)
    if frame.empty:
        raise UsageError("the manifest has no rows", path, "look at rejects.csv beside it, or index another folder")
    frame = with_types(frame, path)
    root = Path(root) if root is not None else path.parent
    frame.attrs = {"source": str(path), "root": str(root)}
    check_manifest(frame, path, root, label_columns(frame))
    return frame


def read_table(
    path: Path, name: str = "the manifest", fix: str = "make one with `fmct index ROOT --out MANIFEST.csv`"
) -> pd.DataFrame:
    """Read a CSV (everything as text) or Parquet file as it is.

    Args:
        path: the file.
        name: how errors call it.
        fix: what they advise.

    Raises:
        UsageError: when it is missing, empty, of another type or broken.
    """
    require_file(path, name, fix)
    try:
        if path.suffix == ".csv":
            return even(pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig"), path)
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
    except pd.errors.EmptyDataError as error:
        raise UsageError(f"{name} is an empty file", path, fix) from error
    except (pd.errors.ParserError, UnicodeDecodeError, pyarrow.lib.ArrowInvalid, OSError) as error:
        raise UsageError(f"{name} can't be read ({str(error).splitlines()[0]})", path, "make it anew") from error
    raise UsageError(f"{name} must be .csv or .parquet, not {path.suffix!r}", path, "rename or convert the file")


def even(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Check that all rows of a CSV file have as many cells as there are columns: others would slide under wrong names.

    Raises:
        UsageError: naming the first row that hasn't.
    """
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes what is too much at the front for row names
        what = f"rows have more than the {len(frame.columns)} cells that the header names"
        raise UsageError(what, path, "name all columns, or take out commas at the end of rows")
    short = frame.isna().any(axis=1).to_numpy()
    if short.any():
        what = f"line {int(short.argmax()) + 2} has fewer than the {len(frame.columns)} cells that the header names"
        raise UsageError(what, path, "complete the row; empty cells need their commas")
    return frame


def with_types(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return the frame with the column types and order that this module promises."""
    labels = label_columns(frame)
    others = [str(name) for name in frame.columns if name not in COLUMNS and name not in labels]
    columns: dict[str, Any] = {}
    for name in [*COLUMNS, *others, *labels]:
        if name in TEXT_COLUMNS:
            columns[name] = text_column(frame, name, path)
        elif name in NUMBER_COLUMNS:
            columns[name] = number_column(frame, name, path)
        elif name in INTEGER_COLUMNS or name in labels:
            columns[name] = integer_column(frame, name, path, INTEGER_COLUMNS.get(name, "Int8"))
        else:
            columns[name] = frame[name]
    return pd.DataFrame(columns).reset_index(drop=True)


def text_column(frame: pd.DataFrame, name: str, path: Path) -> pd.Series[str]:
    """Return a column as strings; refuse numbers in a Parquet file, which have already lost their leading zeros."""
    if name not in frame.columns:
        return pd.Series([""] * len(frame), dtype="str")
    column = frame[name]
    if pd.api.types.is_numeric_dtype(column) and column.notna().any():
        raise UsageError(f"the column {name!r} holds numbers, not text", path, "write it as text, so that 00123 stays")
    return column.astype("str").where(column.notna(), "").reset_index(drop=True)


def number_column(frame: pd.DataFrame, name: str, path: Path) -> pd.Series[float]:
    """Return a column as float64, NaN where it is empty."""
    if name not in frame.columns:
        return pd.Series(np.full(len(frame), np.nan))
    column = frame[name].reset_index(drop=True)
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    doubtful = np.flatnonzero((numbers.isna() & column.notna()).to_numpy())
    bad = doubtful[~column.iloc[doubtful].astype("str").str.strip().str.lower().isin(["", "nan"]).to_numpy()]
    if len(bad):
        row = int(bad[0])
        raise UsageError(
            f"{name} is {column.iloc[row]!r}, not a number", f"{path}, {row_name(frame, row)}", "mend or empty it"
        )
    return numbers


def integer_column(frame: pd.DataFrame, name: str, path: Path, dtype: str) -> pd.Series[int]:
    """Return a column as nullable integers; a label's values must be 1, 0 or empty."""
    numbers = number_column(frame, name, path)
    is_flag = dtype == "Int8"
    wrong = numbers.notna() & (~numbers.isin([0.0, 1.0]) if is_flag else (numbers % 1 != 0))
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        allowed = "1, 0 or empty" if is_flag else "a whole number or empty"
        raise UsageError(
            f"{name} is {numbers.iloc[row]:g}; it must be {allowed}",
            f"{path}, {row_name(frame, row)}",
            "mend the value; empty means unknown",
        )
    return numbers.astype(dtype)  # type: ignore[call-overload, no-any-return]


def row_name(frame: pd.DataFrame, row: int) -> str:
    """Say which row is meant, as a person would look for it: the line of a CSV file and the scan."""
    return f"line {row + 2} (scan {frame['scan_id'].iloc[row]})"


def label_columns(frame: pd.DataFrame) -> list[str]:
    """Return the `label:NAME` columns, in their order."""
    return [str(name) for name in frame.columns if str(name).startswith(LABEL_PREFIX)]


def label_names(frame: pd.DataFrame) -> list[str]:
    """Return the names of the labels, without `label:`."""
    return [name.removeprefix(LABEL_PREFIX) for name in label_columns(frame)]


def scan_path(row: Mapping[Hashable, Any] | pd.Series[Any], root: str | Path) -> Path:
    """Return where a row's scan is on disk.

    Args:
        row: a row of the manifest, with `scan_id` and `path`.
        root: the folder that paths are relative to.

    Raises:
        UsageError: when the path leads out of the root, by itself or through a link, or was written with hashes for
            names and no name on disk has them.
    """
    inside, written = Path(root).resolve(), str(row["path"])
    names = PathNames(inside, read_key(make=False) if is_redacted(written) else None)
    path = names.real(written).resolve()
    if not path.is_relative_to(inside):
        raise UsageError(
            f"the path of scan {row['scan_id']} leads out of the root to {path}",
            root,
            "pass the folder that holds the scans as --root",
        )
    return path


def write_manifest(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a manifest as CSV or Parquet, whole or not at all.

    Raises:
        UsageError: when the name ends in neither `.csv` nor `.parquet`.
    """
    path = Path(path)
    if path.suffix not in {".csv", ".parquet"}:
        raise UsageError(f"a manifest is .csv or .parquet, not {path.suffix!r}", path, "choose another name")
    frame = frame.copy(deep=False)
    frame.attrs = {}
    with atomic_path(path) as temporary:
        if path.suffix == ".csv":
            frame.to_csv(temporary, index=False)
        else:
            frame.to_parquet(temporary, index=False)
