"""Labels from any table that shares an identifier with the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fmct.console.errors import UsageError, nearest
from fmct.data.manifest import LABEL_PREFIX, read_table


def labels_of_table(manifest: pd.DataFrame, table: Path, on: str, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Join label columns to a manifest.

    Args:
        manifest: as `read_manifest` returns it.
        table: a `.csv` or `.parquet` file with the column `on` and label columns holding 1, 0 or nothing.
        on: the identifier that both have: scan_id, path, patient_id, study_id, series_id or any shared column.
        columns: label columns of the table; empty: all that begin with `label:`.

    Returns:
        The manifest with a `label:NAME` column for each; scans that the table doesn't know stay empty (unknown). Scans
        that had a value keep it where the table has none.

    Raises:
        UsageError: when a column is missing, an identifier comes twice with different labels, or nothing matches.
    """
    rows = read_table(table)
    for name, frame, where in ((on, manifest, "the manifest"), *((c, rows, str(table)) for c in (on, *columns))):
        if name not in frame.columns:
            guess = nearest(name, [str(c) for c in frame.columns])
            raise UsageError(f"no column {name}", where, f"did you mean {guess}?" if guess else "name another column")
    names = list(columns) or [str(c) for c in rows.columns if str(c).startswith(LABEL_PREFIX)]
    if not names:
        raise UsageError("the table has no label columns", table, "name them `label:NAME`, or list them with --columns")
    rows = rows[[on, *names]].drop_duplicates()
    repeated = rows[rows[on].duplicated()]
    if len(repeated):
        raise UsageError(
            f"{on} {repeated[on].iloc[0]} comes twice with different labels", table, "keep one row per identifier"
        )
    matched = manifest[[on]].astype("str").merge(rows.astype({on: "str"}), on=on, how="left")
    if not manifest[on].astype("str").isin(rows[on].astype("str")).any():
        example = f"{manifest[on].iloc[0]} in the manifest, {rows[on].iloc[0]} in the table"
        raise UsageError(f"no scan's {on} is in the table ({example})", table, "choose another column with --on")
    labeled = manifest.copy()
    for name in names:
        column = LABEL_PREFIX + name.removeprefix(LABEL_PREFIX)
        values = pd.to_numeric(matched[name].replace("", None), errors="coerce")
        wrong = matched[name].notna() & (matched[name].astype("str") != "") & ~values.isin([0, 1])
        if wrong.any():
            raise UsageError(
                f"{name} is {matched[name][wrong].iloc[0]!r}; labels are 1, 0 or empty", table, "mend the value"
            )
        values.index = labeled.index
        values = values.astype("Int8")
        labeled[column] = values.fillna(labeled[column]) if column in labeled else values
    return labeled
