"""What files don't say of themselves – a NIfTI file's patient, a folder's hospital – from the user's own table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fmct.console.errors import UsageError
from fmct.data.manifest import read_table
from fmct.data.privacy import keyed_id

KNOWN_COLUMNS = ("patient_id", "site")


def with_known(manifest: pd.DataFrame, table: Path, key: bytes) -> pd.DataFrame:
    """Fill in patients and sites that a table knows, by path.

    Args:
        manifest: as `fmct index` makes it.
        table: `.csv` or `.parquet` with the column `path`, as in the manifest, and `patient_id` (in the clear, as DICOM
            headers have it), `site` or both. Other columns don't matter; empty cells leave what was there.
        key: the secret of the patients' hashes; the table's patients get the same hash as those of DICOM headers.

    Returns:
        The manifest with the two columns filled in where the table has the path.

    Raises:
        UsageError: when the table lacks the columns, names a path twice, or has none of the manifest's paths.
    """
    rows = read_table(table)
    columns = [name for name in KNOWN_COLUMNS if name in rows.columns]
    if "path" not in rows.columns or not columns:
        there = ", ".join(map(str, rows.columns))
        raise UsageError(f"the table needs `path` and `patient_id` or `site`; it has {there}", table, "add the columns")
    rows = rows[["path", *columns]].astype("str").fillna("").drop_duplicates()
    if rows["path"].duplicated().any():
        twice = rows["path"][rows["path"].duplicated()].iloc[0]
        raise UsageError(f"{twice} is in the table with different values", table, "keep one row per path")
    if not manifest["path"].isin(rows["path"]).any():
        example = f"{manifest['path'].iloc[0]} in the manifest, {rows['path'].iloc[0]} in the table"
        raise UsageError(
            f"the table has none of the scans' paths ({example})", table, "write paths as the manifest does"
        )
    known = manifest[["path"]].merge(rows, on="path", how="left")
    filled = manifest.copy()
    for name in columns:
        values = known[name].fillna("").set_axis(manifest.index)
        if name == "patient_id":
            values = values.map(lambda patient: keyed_id("patient", patient, key) if patient else "")
        filled[name] = manifest[name].where(values == "", values)
    return filled
