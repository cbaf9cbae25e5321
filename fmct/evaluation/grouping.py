"""How scans are divided into groups: by a column as it is, by scanner, or by bins of a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from fmct.console.errors import UsageError, nearest

UNKNOWN = "unknown"
SUBGROUPS = ("site", "scanner", "slice_mm", "age", "sex", "kernel")


def binned(edges: Sequence[float], unit: str) -> Callable[[pd.DataFrame, str], pd.Series[str]]:
    """Return a grouping of a column of numbers: below the first edge, between edges, from the last one on."""
    names = [f"below {edges[0]:g}{unit}"]
    names += [f"{low:g} to below {high:g}{unit}" for low, high in pairwise(edges)]
    names += [f"{edges[-1]:g}{unit} and more"]

    def grouping(frame: pd.DataFrame, column: str) -> pd.Series[str]:
        numbers = pd.to_numeric(frame[column], errors="coerce")
        cut = pd.cut(numbers, [-np.inf, *edges, np.inf], right=False, labels=names)
        return cut.astype("object").where(numbers.notna(), UNKNOWN)

    return grouping


def as_text(frame: pd.DataFrame, column: str) -> pd.Series[str]:
    """Group by what a column says."""
    text = frame[column].astype("string").fillna("").str.strip()
    return text.where(text != "", UNKNOWN).astype(object)


def scanner(frame: pd.DataFrame, column: str) -> pd.Series[str]:
    """Group by manufacturer and model."""
    both = as_text(frame, "manufacturer") + " " + as_text(frame, "model")
    return both.where(both != f"{UNKNOWN} {UNKNOWN}", UNKNOWN)


GROUPINGS: dict[str, tuple[str, Callable[[pd.DataFrame, str], pd.Series[str]]]] = {
    "scanner": ("manufacturer", scanner),
    "slice_mm": ("spacing_z_mm", binned((1.5, 3.0, 6.0), " mm")),
    "age": ("age", binned((18, 40, 65, 80), " years")),
}
"""What isn't simply a column: the column it needs, and how it divides the scans."""


def groups_by(predictions: pd.DataFrame, by: str) -> pd.Series[str] | None:
    """Say to which group every row belongs; None where the predictions lack the column."""
    column, grouping = GROUPINGS.get(by, (by, as_text))
    if column not in predictions or (by == "scanner" and "model" not in predictions):
        return None
    return grouping(predictions, column)


def natural(name: str) -> tuple[float, str]:
    """Sort "below 18 years" before "18 to below 40 years", and numbers by size."""
    first = name.removeprefix("below ").split(" ")[0]
    number = float(first) if first.replace(".", "", 1).isdigit() else np.inf
    return (number - 0.5 * name.startswith("below "), name)


def check_columns(by: Sequence[str], columns: Sequence[str], where: str) -> None:
    """Refuse a subgroup that nothing in a manifest stands for.

    Raises:
        UsageError: naming the nearest.
    """
    for name in by:
        column = GROUPINGS.get(name, (name,))[0]
        if column not in columns:
            guess = nearest(name, [*GROUPINGS, *columns])
            fix = f"did you mean {guess}?" if guess else f"name {', '.join(GROUPINGS)} or a column of the manifest"
            raise UsageError(f"the manifest has no column for the subgroup {name}", where, fix)
