"""predictions.parquet: what a model said about every scan, one row per scan and label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from fmct.console.errors import UsageError, nearest, require_file
from fmct.console.files import atomic_path

IDENTIFIERS = ("scan_id", "patient_id", "label")
REQUIRED = (*IDENTIFIERS, "target", "probability")
AGAIN = "run `fmct evaluate` again to write it anew"


def check_predictions(frame: pd.DataFrame, where: str | Path) -> pd.DataFrame:
    """Return the predictions with their types put right: identifiers as text, numbers as float64.

    Args:
        frame: columns scan_id, patient_id, label, target (0, 1, or missing where unknown), probability in [0, 1], and
            any others (split, site, manufacturer, model, kernel, ...), which are kept as they are, as is what
            `fmct.evaluation.facts` attached.
        where: the file that errors name.

    Raises:
        UsageError: on a missing column, an empty frame or identifier, a value out of range, a scan that occurs twice
            for a label or belongs to two patients.
    """
    for column in REQUIRED:
        if column not in frame:
            guess = nearest(column, map(str, frame.columns))
            hint = f"; the nearest column is {guess}" if guess else ""
            raise UsageError(f"predictions have no column {column}{hint}", where, AGAIN)
    if frame.empty:
        raise UsageError("predictions hold no row", where, "evaluate on a manifest with labeled scans")
    attached, frame = frame.attrs, frame.reset_index(drop=True)
    frame.attrs = attached
    for column in IDENTIFIERS:
        texts = frame[column].astype("string")
        refuse_rows(frame, (texts.isna() | (texts == "")).to_numpy(bool), f"{column} is empty", where)
        frame[column] = texts.astype(object)
    for column, allowed, within in (
        ("target", "0, 1 or missing", lambda value: np.isnan(value) | (value == 0) | (value == 1)),
        ("probability", "a number from 0 to 1", lambda value: (value >= 0) & (value <= 1)),
    ):
        frame[column] = checked_numbers(frame, column, allowed, within, where)
    refuse_rows(frame, frame.duplicated(["scan_id", "label"]).to_numpy(), "scan occurs twice for a label", where)
    patients_of_scan = frame.groupby("scan_id")["patient_id"].transform("nunique")
    refuse_rows(frame, (patients_of_scan > 1).to_numpy(), "scan belongs to two patients", where)
    return frame


def checked_numbers(
    frame: pd.DataFrame,
    column: str,
    allowed: str,
    within: Callable[[np.ndarray], np.ndarray],
    where: str | Path,
) -> np.ndarray:
    """Return a column as (rows,) float64, refusing text and values out of range."""
    numbers = pd.to_numeric(frame[column], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    became_missing = np.isnan(numbers) & frame[column].notna().to_numpy()
    refuse_rows(frame, became_missing | ~within(numbers), f"{column} isn't {allowed}", where)
    return numbers


def refuse_rows(frame: pd.DataFrame, wrong: np.ndarray, what: str, where: str | Path) -> None:
    """Raise a UsageError that names the first wrong row and counts the others."""
    if wrong.any():
        first = frame.loc[int(np.flatnonzero(wrong)[0])]
        scan = f"scan {first['scan_id']!r}, label {first['label']!r}"
        raise UsageError(f"{what} in {int(wrong.sum())} of {len(frame)} rows, first: {scan}", where, AGAIN)


def write_predictions(frame: pd.DataFrame, path: Path) -> None:
    """Check predictions and write them as Parquet, whole or not at all.

    Args:
        frame: see `check_predictions`.
        path: the file, usually RUN/evaluations/NAME/predictions.parquet.

    Raises:
        UsageError: when the frame breaks the schema; nothing is written then.
    """
    checked = check_predictions(frame, path)
    with atomic_path(path) as temporary:
        checked.to_parquet(temporary, index=False)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read and check a predictions file.

    Returns:
        One row per scan and label: scan_id, patient_id and label as text, target float64 in {0, 1, NaN}, probability
        float64, and whatever other columns the file has.

    Raises:
        UsageError: when the file is missing, isn't Parquet, or breaks the schema.
    """
    require_file(path, "predictions file", AGAIN)
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these
        raise UsageError(f"not a readable Parquet file ({error})", path, AGAIN) from error
    return check_predictions(frame, path)
