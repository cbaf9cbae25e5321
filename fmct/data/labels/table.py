"""Labels from any table that shares an identifier with the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fmct.console.errors import UsageError, nearest
from fmct.data.labels.columns import column_names, read_columns
from fmct.data.labels.identifiers import HASHED_COLUMNS, as_in_manifest
from fmct.data.labels.source import SOFT_PREFIX, SourceLabels, shares, shown
from fmct.data.manifest import LABEL_PREFIX


def labels_of_table(
    manifest: pd.DataFrame, table: Path, on: str, columns: Sequence[str] = (), key: bytes | None = None
) -> SourceLabels:
    """Look up the labels of a manifest's scans.

    Args:
        manifest: as `read_manifest` returns it.
        table: a `.csv` or `.parquet` file with the column `on` and label columns holding 1, 0 or nothing.
        on: the identifier that both have: scan_id, path, patient_id, study_id, series_id or any shared column.
            Patients and studies may be in the clear in the table.
        columns: label columns of the table; empty: all that begin with `label:` or `soft:`.
        key: the secret that patients and studies in the clear are hashed with.

    Raises:
        UsageError: when a column is missing, an identifier comes twice with different labels, a value is no label, or
            nothing matches.
    """
    if on not in manifest.columns:
        guess = nearest(on, [str(column) for column in manifest.columns])
        raise UsageError(
            f"no column {on}", "the manifest", f"did you mean {guess}?" if guess else "choose another with --on"
        )
    names = list(columns)
    if not names:
        names = [name for name in column_names(table) if name.startswith((LABEL_PREFIX, SOFT_PREFIX))]
    if not names:
        raise UsageError("the table has no label columns", table, "name them `label:NAME`, or list them with --columns")
    rows: pd.DataFrame = read_columns(table, [on, *names], identifiers=[on]).to_pandas()
    values = pd.DataFrame({target(name): parsed(rows[name], name, table) for name in names})
    wanted = manifest[on].astype("str")
    ids = rows[on]
    if on in HASHED_COLUMNS:
        ids = ids.map(as_in_manifest(ids, set(wanted), HASHED_COLUMNS[on], key))
    empty = ids.str.strip() == ""
    values, ids = values[~empty], ids[~empty]
    first = ~values.assign(id=ids).duplicated()
    values, ids = values[first], ids[first]
    if ids.duplicated().any():
        raise UsageError(
            f"one {on} comes twice with different labels; {ids[ids.duplicated()].nunique()} such",
            f"{table}, line {int(ids.index[ids.duplicated()][0]) + 2}",
            "keep one row per identifier",
        )
    if not wanted.isin(ids).any():
        raise UsageError(
            f"no scan's {on} is in the table" + ("" if on in HASHED_COLUMNS else example(wanted, ids)),
            table,
            "choose another column with --on"
            + (", or pass the --key-file that `fmct index` used" if on in HASHED_COLUMNS else ""),
        )
    counts = Counter(
        {
            f"rows of the table that are no scan's {on}": int((~ids.isin(wanted)).sum()),
            f"rows of the table without {on}": int(empty.sum()),
        }
    )
    return SourceLabels(values.set_axis(ids).reindex(wanted).set_axis(manifest.index), counts)


def target(name: str) -> str:
    """Return the manifest's column for a column of the table."""
    return name if name.startswith((LABEL_PREFIX, SOFT_PREFIX)) else LABEL_PREFIX + name


def example(wanted: pd.Series[str], ids: pd.Series[str]) -> str:
    """Show one identifier of each side, so that a difference in spelling can be seen."""
    return f" ({wanted.iloc[0]} in the manifest, {ids.iloc[0] if len(ids) else 'nothing'} in the table)"


def parsed(column: pd.Series[str], name: str, table: Path) -> pd.Series[Any]:
    """Return a column of the table as labels (Int8) or, for `soft:NAME`, shares (float64).

    Raises:
        UsageError: naming the line, when a value is neither 1, 0 nor empty, or no share.
    """
    if name.startswith(SOFT_PREFIX):
        return shares(column, name, str(table))
    text = column.str.strip()
    numbers = pd.to_numeric(text.where(text != ""), errors="coerce")
    wrong = ((text != "") & ~numbers.isin([0, 1])).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise UsageError(
            f"{name} is {shown(column.iloc[row])}; labels are 1, 0 or empty",
            f"{table}, line {row + 2}",
            "mend the value",
        )
    return numbers.astype("Int8")
