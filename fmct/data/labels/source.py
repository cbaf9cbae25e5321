"""What a source of labels says about the scans of a manifest, and how that joins what the manifest has already."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from fmct.console.errors import UsageError
from fmct.data.manifest import label_columns

SOFT_PREFIX = "soft:"
SAME_SHARE = 1e-5
NUMBER = re.compile(r"[+-]?[0-9.]{1,8}")


@dataclass(frozen=True, eq=False)
class SourceLabels:
    """Labels for the rows of a manifest.

    Attributes:
        values: indexed as the manifest; `label:NAME` columns hold 1, 0 or <NA> (Int8), `soft:NAME` columns the share
            of readers that saw the finding, 0 to 1, or NaN.
        counts: what was found and what was passed over, in words, each with its number.
    """

    values: pd.DataFrame
    counts: Counter[str] = field(default_factory=Counter)

    def labeled(self) -> pd.Series[bool]:
        """Tell which rows got at least one label."""
        return self.values[label_columns(self.values)].notna().any(axis=1)


def soft_columns(frame: pd.DataFrame) -> list[str]:
    """Return the `soft:NAME` columns, in their order."""
    return [str(name) for name in frame.columns if str(name).startswith(SOFT_PREFIX)]


def add_labels(manifest: pd.DataFrame, labels: SourceLabels, overwrite: bool = False) -> pd.DataFrame:
    """Join labels to a manifest; what it has already stays where the source says nothing.

    Args:
        manifest: as `read_manifest` returns it.
        labels: of the manifest's rows.
        overwrite: take the source's value where both know one and they differ.

    Raises:
        UsageError: when they differ and `overwrite` isn't set.
    """
    joined = manifest.copy()
    joined.attrs = dict(manifest.attrs)
    for name in soft_columns(manifest):
        joined[name] = shares(manifest[name], name, str(manifest.attrs.get("source", "the manifest")))
    for name in labels.values.columns:
        new = labels.values[name]
        if name not in joined:
            joined[name] = new
            continue
        old: pd.Series[Any] = joined[name]
        apart = (old.astype("float64") - new.astype("float64")).abs() > SAME_SHARE
        if apart.any() and not overwrite:
            row = int(apart.to_numpy().argmax())
            raise UsageError(
                f"{name} of scan {manifest['scan_id'].iloc[row]} is {old.iloc[row]:g} in the manifest and "
                f"{new.iloc[row]:g} in the source; {int(apart.sum())} such values",
                str(manifest.attrs.get("source", "the manifest")),
                "--overwrite takes the source's values",
            )
        joined[name] = new.where(new.notna(), old)
    softs = soft_columns(joined)
    return joined[[*(name for name in joined.columns if name not in softs), *softs]]


def shares(column: pd.Series[Any], name: str, source: str, scan_ids: Sequence[str] | None = None) -> pd.Series[float]:
    """Return a `soft:NAME` column as float64, NaN where it is empty.

    Args:
        column: as read from a file.
        name: the column's.
        source: the file, for messages.
        scan_ids: whose the rows are, where they aren't the file's own lines.

    Raises:
        UsageError: naming the line or scan, when a value isn't a number from 0 to 1.
    """
    blank = column.isna() | (column.astype("str").str.strip() == "")
    numbers = pd.to_numeric(column.where(~blank), errors="coerce").astype("float64")
    wrong = (~blank & ~numbers.between(0.0, 1.0)).to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UsageError(
            f"{name} is {shown(column.iloc[row])}; it must be a share from 0 to 1, or empty",
            f"{source}, " + (f"line {row + 2}" if scan_ids is None else f"scan {scan_ids[row]}"),
            "mend or empty the value",
        )
    return numbers


def shown(value: Any) -> str:
    """Return a wrong value as a message may show it: numbers only, for anything else could say who somebody is."""
    return f"{value:g}" if isinstance(value, (int, float)) else str(value) if NUMBER.fullmatch(str(value)) else "a text"
