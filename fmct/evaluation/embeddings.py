"""A table of features as `fmct embed` writes it, joined to a manifest by scan_id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmct.console.errors import UsageError
from fmct.data.manifest import read_table

EMBED = "write it with `fmct embed INPUT --weights W --out TABLE.parquet`"


def read_embeddings(path: Path) -> pd.DataFrame:
    """Read a table of features: a column scan_id, and numbers in all others.

    Returns:
        One row per scan, float64, indexed by scan_id as text.

    Raises:
        UsageError: when the file is missing or no table, has no scan_id or no feature, names a scan twice, or
            holds what isn't a finite number.
    """
    table = read_table(path, "the table of embeddings", EMBED)
    if "scan_id" not in table:
        raise UsageError("the table has no column scan_id", path, EMBED)
    if pd.api.types.is_numeric_dtype(table["scan_id"]):
        raise UsageError("scan_id holds numbers, not text", path, "write it as text, so that 00123 stays")
    features = table.set_index(table["scan_id"].astype(str)).drop(columns="scan_id")
    if features.shape[1] == 0 or features.empty:
        raise UsageError("the table holds no feature", path, EMBED)
    twice = features.index[features.index.duplicated()]
    if len(twice):
        raise UsageError(f"{len(twice)} scans occur twice, the first is {twice[0]}", path, "keep one row of each scan")
    numbers: pd.DataFrame = features.apply(pd.to_numeric, errors="coerce").astype(np.float64)
    wrong: NDArray[np.bool_] = ~np.isfinite(numbers.to_numpy())
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        what = f"{numbers.columns[column]} of scan {numbers.index[row]} is no finite number ({wrong.sum()} such values)"
        raise UsageError(what, path, "embed these scans again, or leave the column out")
    return numbers
