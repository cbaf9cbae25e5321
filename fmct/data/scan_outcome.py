"""What became of a scan in preprocessing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fmct.data.rejection import RejectCode


@dataclass(frozen=True)
class Outcome:
    """What became of a scan: its row of the cache's index, or why there is none."""

    scan_id: str
    path: str
    row: dict[str, Any] | None = None
    code: RejectCode | None = None
    detail: str = ""
