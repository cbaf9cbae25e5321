"""The table at the head of a report: mean AUROC over labels by run and data set, against the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fmct.evaluation.descriptions import as_subject
from fmct.evaluation.figures import Look
from fmct.evaluation.results import DataSetResults
from fmct.evaluation.wording import interval, share, signed, signed_interval


@dataclass
class MeanCell:
    """A run's mean on one data set: its value, and its differences to its baselines, decided ones marked."""

    auroc: str = ""
    auroc_ci: str = ""
    differences: list[tuple[str, bool, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Overview:
    """The means of all runs on all data sets.

    Attributes:
        labels: that the means are over; empty where data sets or pairs have others.
        data_sets: the columns.
        rows: a run, and its cells in the order of the columns; None where it has no mean.
        notes: what to beware of in the intervals.
    """

    labels: str
    data_sets: list[str]
    rows: list[tuple[Look, list[MeanCell | None]]]
    notes: list[str]


def overview(gathered: Sequence[DataSetResults], looks: Sequence[Look]) -> Overview | None:
    """Lay out the means by run and data set; None where no two runs were compared."""
    compared = [one.mean for results in gathered for one in results.comparisons if one.mean]
    if not compared:
        return None
    cells = [cells_of(results, looks) for results in gathered]
    runs = [run for run in range(len(looks)) if any(run in column for column in cells)]
    labels = {one.labels for one in compared}
    return Overview(
        labels=", ".join(compared[0].labels) if len(labels) == 1 else "",
        data_sets=[results.name for results in gathered],
        rows=[(looks[run], [column.get(run) for column in cells]) for run in runs],
        notes=sorted({one.note for one in compared if one.note}),
    )


def cells_of(results: DataSetResults, looks: Sequence[Look]) -> dict[int, MeanCell]:
    """Return the cell of every run on a data set."""
    cells: dict[int, MeanCell] = {}
    for run, evaluation in enumerate(results.evaluations):
        if evaluation and evaluation.metrics.mean.auroc is not None:
            cells[run] = MeanCell(share(evaluation.metrics.mean.auroc))
    for one in results.comparisons:
        if one.mean is None or {one.run, one.baseline} - cells.keys():
            continue
        of_run, of_baseline = cells[one.run], cells[one.baseline]
        for cell, bounds in ((of_run, one.mean.a_ci), (of_baseline, one.mean.b_ci)):
            cell.auroc_ci = interval(bounds) if bounds else ""
        text = f"{signed(one.mean.difference)} ({signed_interval(one.mean.ci)})"
        of_run.differences.append((text, one.mean.decided, as_subject(looks[one.baseline].label)))
    return cells
