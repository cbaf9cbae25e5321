"""Making the scans of a cohort, in this process or in several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmct.console.errors import FmctError
from fmct.data.phantom.cohort import Case, make
from fmct.data.processes import run_jobs

Row = dict[str, object]


@dataclass(frozen=True)
class CaseJob:
    """A scan that one process makes.

    Attributes:
        number: of the case in the cohort's plan.
        case: what to make.
        cohort: folder of the cohort.
        masks: whether to write masks of its lesions too.
    """

    number: int
    case: Case
    cohort: Path
    masks: bool = False

    def run(self) -> list[tuple[int, Row]]:
        """Make it; return its number and its row of the truth table."""
        return [(self.number, make(self.case, self.cohort, self.masks))]

    def singly(self) -> list[CaseJob]:
        """Return it alone: it has but one piece."""
        return [self]

    def failed(self, error: BaseException) -> list[tuple[int, Row]]:
        """Say which scan can't be made: a cohort without it would be another cohort.

        Raises:
            FmctError: always.
        """
        fix = "run it with fewer --workers: maybe memory ran out"
        raise FmctError(f"making the phantom broke off ({type(error).__name__})", self.case.path, fix) from error


def made(plan: Sequence[Case], cohort: Path, workers: int, masks: bool = False) -> Iterator[tuple[int, Row]]:
    """Make all scans of a cohort; yield their numbers in the plan and their rows of the truth table, in any order.

    Args:
        plan: the cohort's scans.
        cohort: folder to write into.
        workers: processes; 1 means this one.
        masks: whether to write masks of lesions too.

    Raises:
        OSError: when a scan can't be written.
        FmctError: naming a scan that can't be made.
    """
    jobs = (CaseJob(number, case, cohort.resolve(), masks) for number, case in enumerate(plan))
    for part in run_jobs(jobs, min(workers, len(plan))):
        yield from part
