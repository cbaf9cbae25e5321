"""Columns of tables that others wrote, all as text: millions of rows in seconds, and no value in any message."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from fmct.console.errors import UsageError, nearest, require_file


def column_names(path: Path) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        UsageError: when the file is missing, empty, or neither `.csv` nor `.parquet`.
    """
    require_file(path, "the table", "check the path given as --table")
    if path.suffix == ".parquet":
        try:
            return [str(name) for name in pyarrow.parquet.read_schema(path).names]
        except (pa.lib.ArrowInvalid, OSError) as error:
            raise UsageError("the file is no Parquet file", path, "write the table anew") from error
    if path.suffix != ".csv":
        raise UsageError(f"a table is .csv or .parquet, not {path.suffix!r}", path, "convert the file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError("the file is no CSV in UTF-8", path, "write the table anew, as UTF-8") from error
    if not any(header):
        raise UsageError("the table is empty", path, "its first line names the columns")
    return header


def require_columns(path: Path, wanted: Sequence[str], there: Sequence[str]) -> None:
    """Check that a table has some columns, each once.

    Raises:
        UsageError: naming the first that is missing, and the nearest that is there.
    """
    for name in wanted:
        if name not in there:
            guess = nearest(name, there)
            shown = ", ".join(name for name in there if name)
            raise UsageError(f"no column {name}", path, f"did you mean {guess}?" if guess else f"it has {shown}")
        if list(there).count(name) > 1:
            raise UsageError(f"the column {name} is there twice", path, "remove or rename one")


def read_columns(path: Path, wanted: Sequence[str], identifiers: Sequence[str] = ()) -> Any:
    """Read some columns of a `.csv` or `.parquet` table as text.

    Args:
        path: the file; UTF-8, with or without a byte order mark.
        wanted: the columns; others aren't read.
        identifiers: those of them that must not be numbers in a Parquet file, for 00123 would be 123.

    Returns:
        A `pyarrow.Table` with string columns in the order of `wanted`; "" where a cell is empty.

    Raises:
        UsageError: when the file or a column is missing, or a line has another number of columns. Lines are named by
            number: their content could say who somebody is.
    """
    wanted = list(dict.fromkeys(wanted))
    require_columns(path, wanted, column_names(path))
    if path.suffix == ".parquet":
        return parquet_as_text(path, wanted, identifiers)
    options = pyarrow.csv.ConvertOptions(
        include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False
    )
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    try:
        return pyarrow.csv.read_csv(path, convert_options=options, parse_options=parsing)
    except pa.lib.ArrowInvalid:
        try:  # again, without threads: only then the error has the line's number
            single = pyarrow.csv.ReadOptions(use_threads=False)
            pyarrow.csv.read_csv(path, single, parse_options=parsing, convert_options=options)
        except pa.lib.ArrowInvalid as error:
            line = re.search(r"Row #(\d+)", str(error))
            where = f"{path}, line {line[1]}" if line else str(path)
            raise UsageError("the line has another number of columns than the first", where, "mend it") from None
        raise


def parquet_as_text(path: Path, wanted: Sequence[str], identifiers: Sequence[str]) -> Any:
    """Read some columns of a Parquet file as text."""
    table = pyarrow.parquet.read_table(path, columns=list(wanted))
    columns = []
    for name in wanted:
        column = table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if name in identifiers and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise UsageError(
                f"the column {name} holds numbers, not text", path, "write it as text, so that 00123 stays"
            )
        columns.append(column.cast(pa.string()).fill_null(""))
    return pa.table(dict(zip(wanted, columns, strict=True)))
