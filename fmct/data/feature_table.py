"""Features that were made elsewhere, in tables: one row per scan, its `scan_id`, then numbers under any names.

`fmct embed` writes such tables; so can whoever has embeddings of Google's CT Foundation, Merlin or any other model.
N scans, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmct.console.errors import UsageError, nearest
from fmct.data.manifest import number_column, read_table, row_name, text_column

NAMED = 5
MADE = "fmct.features"
"""Key in the metadata of a Parquet table, under which `fmct embed` notes how it was made."""


@dataclass(frozen=True)
class FeatureTable:
    """The rows of one or several tables.

    Attributes:
        paths: the files.
        columns: (D,) names of the features.
        scan_ids: (N,) names of the scans.
        values: (N, D) float32, finite.
        made: how the first table was made, as `fmct embed` notes it: `pooling`, `weights` (their checksum).
    """

    paths: tuple[Path, ...]
    columns: tuple[str, ...]
    scan_ids: tuple[str, ...]
    values: NDArray[np.float32]
    made: Mapping[str, str] = field(default_factory=dict)

    @property
    def frame(self) -> pd.DataFrame:
        """The features by scan_id, float64."""
        return pd.DataFrame(self.values.astype(np.float64), index=list(self.scan_ids), columns=list(self.columns))

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Where each scan is in `values`."""
        return {scan_id: row for row, scan_id in enumerate(self.scan_ids)}

    @property
    def where(self) -> str:
        """The files, for messages."""
        return ", ".join(map(str, self.paths))

    def ordered(self, columns: Sequence[str]) -> FeatureTable:
        """Return the table with its features in the order of those that weights were fitted on.

        Raises:
            UsageError: when the table has another number of features, or other ones.
        """
        if len(columns) != len(self.columns):
            raise UsageError(
                f"the table has {len(self.columns)} features, the weights were fitted on {len(columns)}",
                self.where,
                "give the table that the same model made, with the same pooling",
            )
        place = {name: number for number, name in enumerate(self.columns)}
        lacking = [name for name in columns if name not in place]
        if lacking:
            others = [name for name in self.columns if name not in set(columns)]
            raise UsageError(
                f"the table has no feature {some(lacking)}, which the weights were fitted on; it has {some(others)}",
                self.where,
                "give the table that the same model made; `column` names must stay as they were",
            )
        order = [place[name] for name in columns]
        return FeatureTable(self.paths, tuple(columns), self.scan_ids, self.values[:, order], self.made)

    def present(self, frame: pd.DataFrame, only_present: bool, option: str) -> pd.DataFrame:
        """Return the rows of a manifest whose scans the table has.

        Args:
            frame: rows of a manifest.
            only_present: leave the others out; otherwise they are an error.
            option: what switches that on, for messages.

        Raises:
            UsageError: when scans are missing, counting them and naming some, or all of them are.
        """
        inside = frame["scan_id"].isin(self.row_of).to_numpy(bool)
        missing = frame["scan_id"][~inside].tolist()
        if missing and (not only_present or not inside.any()):
            guess = nearest(missing[0], self.scan_ids) if len(self.scan_ids) <= 10_000 else None
            likeness = f"; it has {guess}, which is written otherwise" if guess else ""
            raise UsageError(
                f"{len(missing)} of {len(frame)} scans are not in the table: {some(missing)}{likeness}",
                self.where,
                f"add them to the table, or leave them out with {option}"
                if inside.any()
                else "write scan_id in the table as in the manifest, as text: 00123 isn't 123",
            )
        return frame[inside]

    def of(self, scan_id: str) -> NDArray[np.float32]:
        """Return the features of one scan that the table has: (D,) float32."""
        row: NDArray[np.float32] = self.values[self.row_of[scan_id]]
        return row


def read_features(paths: Sequence[Path]) -> FeatureTable:
    """Read feature tables, .parquet or .csv, one below the other.

    Raises:
        UsageError: naming the file, when it is missing or broken, `scan_id` is missing or holds numbers (which have
            lost their leading zeros), a scan comes twice, a feature isn't a finite number, or the tables
            have different columns.
    """
    tables = [read_one(path) for path in paths]
    first = tables[0]
    same = [first, *(table.ordered(first.columns) for table in tables[1:])]
    file_of: dict[str, Path] = {}
    for table in same:
        for scan_id in table.scan_ids:
            if scan_id in file_of:
                raise UsageError(
                    f"the scan {scan_id} is in two tables",
                    f"{file_of[scan_id]} and {table.where}",
                    "remove one of them",
                )
            file_of[scan_id] = table.paths[0]
    values = np.concatenate([table.values for table in same])
    return FeatureTable(tuple(paths), first.columns, tuple(file_of), values, first.made)


def read_one(path: Path) -> FeatureTable:
    """Read one table; see `read_features`."""
    frame = read_table(path, "the feature table", "`fmct embed` writes one: columns scan_id, then features")
    if "scan_id" not in frame.columns:
        guess = nearest("scan_id", map(str, frame.columns))
        raise UsageError(
            "the feature table has no column scan_id",
            path,
            f"rename the column {guess}" if guess else "add it: the scan's name in the manifest, as text",
        )
    if frame.empty:
        raise UsageError("the feature table has no rows", path, "add one row per scan")
    names = text_column(frame, "scan_id", path)
    if names.duplicated().any():
        twice = sorted(set(names[names.duplicated()]))
        raise UsageError(f"{len(twice)} scans come twice: {some(twice)}", path, "keep one row per scan")
    columns = [str(name) for name in frame.columns if name != "scan_id"]
    if not columns:
        raise UsageError("the feature table has no features", path, "add columns of numbers beside scan_id")
    if path.suffix == ".parquet":
        others = [name for name in columns if frame[name].dtype.kind not in "iuf"]
        if others:
            raise UsageError(
                f"the column {some(others)} holds no numbers", path, "keep scan_id and columns of numbers only"
            )
        values = frame[columns].to_numpy(np.float32)
    else:
        values = np.stack([number_column(frame, name, path).to_numpy(np.float32) for name in columns], 1)
    wrong = ~np.isfinite(values)
    if wrong.any():
        row, column = (int(place[0]) for place in np.nonzero(wrong))
        raise UsageError(
            f"{columns[column]} is no finite number, and {int(wrong.any(1).sum())} scans have such values",
            f"{path}, {row_name(frame, row)}",
            "make their features again, or remove the rows",
        )
    return FeatureTable((path,), tuple(columns), tuple(names), values, frame.attrs.get(MADE, {}))


def some(names: Sequence[str]) -> str:
    """List the first few names and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
