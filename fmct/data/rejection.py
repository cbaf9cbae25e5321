"""Why a scan is left out: one code for each reason, and the error and the record that carry it."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from fmct.console.errors import FmctError
from fmct.console.files import atomic_path

REJECTS_COLUMNS = ["path", "code", "detail", "scan_id"]


class RejectCode(Enum):
    """A reason to leave a series or file out: the name is the code, the value one sentence saying what it means."""

    def __str__(self) -> str:
        return self.name

    EMPTY = "The file has no bytes."
    UNREADABLE = "The file is damaged or cut short."
    UNSUPPORTED = "The file is in an encoding (transfer syntax) that can't be decoded."
    TOO_LARGE = "The header claims sizes that no head CT has, or the content inflates to them."
    NOT_CT = "The series is of another modality, or a document rather than an image."
    LOCALIZER = "The series is a scout (localizer) view."
    SECONDARY = "The series is a derived screen, report or color picture, not an image in HU."
    NO_GEOMETRY = "Position, orientation or pixel spacing is missing or malformed."
    MIXED_SIZE = "Slices of one series differ in matrix or pixel size."
    MIXED_ORIENTATION = "The series has several orientations, and too few slices of this one."
    TOO_FEW_SLICES = "The series has fewer slices than a head needs."
    ONE_POSITION = "All slices lie at one position, such as a perfusion or bolus-tracking series."
    DUPLICATE_POSITION = "Several different images lie at the same position, so the stack is ambiguous."
    GAP = "Slices are missing: a gap is a multiple of the equal gaps on both its sides."
    SHORT_COVERAGE = "The slices cover too little of the body's length to show a head."
    SMALL_FIELD = "The field of view is smaller than a head."
    SPLIT_HEAD = "The head is divided among series that can't be joined."
    CONTRAST = "A contrast agent was given (an optional rule)."
    IMPLAUSIBLE_HU = "The values are no Hounsfield units: no air, no tissue, constant, or not finite."
    NOT_A_HEAD = "No head was found, or mostly body."
    NOT_DEFACED = "The face couldn't be located to be removed, which `--deface` asks for."
    COPY = "The same scan is in the manifest already, from another place."
    NOT_CHOSEN = "Another series of the study was chosen, or the criteria don't list this one."
    MISSING = "The path of the manifest, or the series in it, isn't on disk."
    FAILED = "Preprocessing broke off with an unexpected error."
    CRASHED = "Native code crashed on it, or memory ran out, and the process that worked on it died."
    TIMEOUT = "It wasn't done within the time that a scan may take."


class ScanError(FmctError):
    """A scan that can't be used; what rejects.csv says about it.

    Args:
        code: the reason.
        scan: the scan's path or identifier.
        detail: what was found, with figures and units, and without anything that names the patient.
    """

    def __init__(self, code: RejectCode, scan: str | Path, detail: str) -> None:
        super().__init__(f"{code.name}: {detail}", scan, f"leave the scan out, or mend it. {code.value}")
        self.code = code
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how it is made anew in another process: of what it was made of, not of the three lines."""
        return type(self), (self.code, self.where, self.detail)


@dataclass(frozen=True)
class Reject:
    """One line of rejects.csv.

    Attributes:
        path: of the file, or of the deepest folder that holds the series.
        code: the reason.
        detail: what was found.
        scan_id: the one that the series would have in a manifest; empty for single files.
    """

    path: str
    code: RejectCode
    detail: str
    scan_id: str = ""


def write_rejects(rejects: Iterable[Reject], path: Path) -> None:
    """Write rejects.csv (path, code, detail, scan_id) in the order given, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(REJECTS_COLUMNS)
        table.writerows((reject.path, reject.code.name, reject.detail, reject.scan_id) for reject in rejects)
