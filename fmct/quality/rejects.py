"""Rejects by code: what each code means, how many there are, and a few examples with a picture where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fmct.console.errors import UsageError
from fmct.data.reject_files import rejects_of
from fmct.data.rejection import RejectCode
from fmct.quality.panels import Picture

EXAMPLES = 4
LONGEST_DETAIL = 240
COLUMNS = ("path", "code", "detail", "scan_id")


@dataclass(frozen=True)
class Example:
    """One reject.

    Attributes:
        path: as rejects.csv has it.
        scan_id: of a series, "" for a single file.
        detail: what was found.
        picture: of it, if any.
        no_picture: why there is none, "" where there is one.
    """

    path: str
    scan_id: str
    detail: str
    picture: Picture | None
    no_picture: str


@dataclass(frozen=True)
class Rejected:
    """All rejects of one code in one stage.

    Attributes:
        stage: "index" or "preprocessing".
        code: its name.
        meaning: its sentence.
        count: lines of rejects.csv.
        examples: spread evenly over them.
    """

    stage: str
    code: str
    meaning: str
    count: int
    examples: list[Example]


def read_index_rejects(manifest: Path) -> pd.DataFrame | None:
    """Return the rejects of a manifest (path, code, detail, scan_id), None where there is no file of them.

    Raises:
        UsageError: when it can't be read or lacks a column; an old one without scan_id is taken as without any.
    """
    path = rejects_of(manifest)
    if path is None:
        return None
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"the rejects can't be read ({type(error).__name__})", path, "index again") from error
    table = table if "scan_id" in table else table.assign(scan_id="")
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise UsageError(f"the rejects have no column {missing[0]!r}", path, "index again")
    return table[list(COLUMNS)]


def by_code(rejects: pd.DataFrame, stage: str, draw: Callable[[str, str, str], Picture | str]) -> list[Rejected]:
    """Group rejects by code, the commonest first.

    Args:
        rejects: with path, code, detail, scan_id.
        stage: where they come from.
        draw: makes a picture of (path, code, scan_id), or says why there is none.
    """
    groups = sorted(rejects.groupby("code"), key=lambda group: (-len(group[1]), str(group[0])))
    found = []
    for code, rows in groups:
        rows = rows.sort_values(["path", "scan_id", "detail"])
        picks = np.unique(np.linspace(0, len(rows) - 1, min(EXAMPLES, len(rows))).round().astype(int))
        examples = []
        for row in rows.iloc[picks].to_dict("records"):
            path, scan_id, detail = (str(row[name]) for name in ("path", "scan_id", "detail"))
            drawn = draw(path, str(code), scan_id)
            picture, reason = (None, drawn) if isinstance(drawn, str) else (drawn, "")
            examples.append(Example(path, scan_id, shortened(detail), picture, reason))
        found.append(Rejected(stage, str(code), meaning(str(code)), len(rows), examples))
    return found


def meaning(code: str) -> str:
    """Return a code's sentence."""
    known = RejectCode.__members__.get(code)
    return known.value if known else "This version doesn't know the code."


def shortened(detail: str) -> str:
    """Return a detail that fits on the page."""
    return detail if len(detail) <= LONGEST_DETAIL else detail[: LONGEST_DETAIL - 1] + "…"
