"""An allow-list of series: which combinations of study description, tube voltage and kernel an archive's head CTs have.

The published system chose its scans by such a table. Descriptions can name patients, so they are compared as keyed
hashes, like those of the headers.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fmct.console.errors import UsageError
from fmct.data.dicom import SliceHeader
from fmct.data.manifest import read_table
from fmct.data.privacy import keyed_id

COLUMNS = {
    "study_description": ("studydescription",),
    "kvp": ("kvp", "kv", "peakkilovoltage"),
    "kernel": ("convolutionkernel", "kernel"),
}

QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")

Entry = tuple[str, float, str]


@dataclass(frozen=True)
class Criteria:
    """The combinations that are let in: hashed description, kilovolts, kernel in capitals."""

    entries: frozenset[Entry]

    def allow(self, header: SliceHeader) -> bool:
        """Tell whether a series is listed."""
        return (header.study_description, header.kvp, kernel_text(header.kernel)) in self.entries

    @property
    def fingerprint(self) -> str:
        """Text that differs where the criteria do."""
        return json.dumps(sorted(self.entries))


def read_criteria(path: Path, key: bytes) -> Criteria:
    """Read an allow-list.

    Args:
        path: `.csv` or `.parquet` with the columns StudyDescription, KVP and ConvolutionKernel, in any order and
            spelling (Study Description, kvp, kernel); others don't matter. A kernel is text (`H31s`) or a list of its
            DICOM values (`['J40s', '3']`).
        key: the secret of the hashes.

    Raises:
        UsageError: when a column is missing, a row has no tube voltage, or there are no rows.
    """
    table = read_table(path, "the criteria", "write one with StudyDescription, KVP and ConvolutionKernel")
    names = {re.sub(r"[^a-z]", "", str(column).lower()): str(column) for column in table.columns}
    columns = {}
    for field, spellings in COLUMNS.items():
        found = [names[spelling] for spelling in spellings if spelling in names]
        if not found:
            raise UsageError(f"the criteria have no column for {field}", path, f"name one {spellings[0]}")
        columns[field] = found[0]
    if table.empty:
        raise UsageError("the criteria have no rows", path, "list at least one combination, or leave --criteria out")
    kvp = pd.to_numeric(table[columns["kvp"]], errors="coerce")
    if kvp.isna().any():
        raise UsageError(f"no tube voltage in line {int(kvp.isna().to_numpy().argmax()) + 2}", path, "fill it in")
    return Criteria(
        frozenset(
            (description_id(description, key), float(kilovolts), kernel_text(parse_kernel(kernel)))
            for description, kilovolts, kernel in zip(
                table[columns["study_description"]], kvp, table[columns["kernel"]], strict=True
            )
        )
    )


def description_id(description: Any, key: bytes) -> str:
    """Return the hash of a study description as `SliceHeader.study_description` has it; "" for an empty cell."""
    text = "" if pd.api.types.is_scalar(description) and pd.isna(description) else str(description).strip().casefold()
    return keyed_id("description", text, key) if text else ""


def parse_kernel(value: Any) -> str:
    """Return a kernel as headers have it, its values joined by a backslash.

    A list may be one (in a Parquet file) or the text of one, as Python or NumPy write it: `['J40s', '3']`.
    """
    if not isinstance(value, str):
        if pd.api.types.is_scalar(value):
            return "" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)
        return "\\".join(str(part) for part in value)
    text = value.strip()
    if not text.startswith(("[", "(")):
        return text
    quoted = [one or other for one, other in QUOTED.findall(text)]
    return "\\".join(quoted or [part.strip() for part in text.strip("[]()").split(",")])


def kernel_text(kernel: str) -> str:
    """Return a kernel in one spelling, for comparison."""
    return "\\".join(part.strip().upper() for part in kernel.split("\\") if part.strip())
