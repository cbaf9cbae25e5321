"""Rows of the report's tables, as the texts that the page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fmct.evaluation.descriptions import as_subject
from fmct.evaluation.figures import Look
from fmct.evaluation.results import Comparison, DataSetResults
from fmct.evaluation.summary import LabelMetrics
from fmct.evaluation.wording import count, interval, p_value, share, signed, signed_interval

VERDICTS = {
    "higher": "better",
    "lower": "worse",
    "undecided": "no difference shown",
    "n/a": "can't be judged",
}


@dataclass(frozen=True)
class ResultRow:
    """One run's result for a label; `undefined` says why there is none."""

    look: Look
    auroc: str
    auroc_ci: str
    ap: str
    ap_ci: str
    sample: str
    undefined: str
    note: str
    leads: bool


@dataclass(frozen=True)
class LabelRows:
    """All runs' results for one label; `sample` and `note` are set where all share them."""

    label: str
    sample: str
    note: str
    rows: list[ResultRow]


@dataclass(frozen=True)
class DifferenceRow:
    """One run against its baseline for one label."""

    run: Look
    baseline: str
    auroc: str
    auroc_ci: str
    ap: str
    ap_ci: str
    p_holm: str
    verdict: str
    decided: bool
    note: str


def result_rows(results: DataSetResults, looks: Sequence[Look]) -> list[LabelRows]:
    """Return the table label by run; what all runs of a label share is said once, at its head."""
    groups = []
    for label in results.labels:
        found = [(run, result) for run in results.evaluated if (result := results.result(run, label))]
        sample = shared_text([sample_text(result) for _, result in found])
        note = shared_text([result.note for _, result in found])
        rows = [
            ResultRow(
                look=looks[run],
                auroc=share(result.auroc),
                auroc_ci=interval(result.auroc_ci),
                ap=share(result.ap),
                ap_ci=interval(result.ap_ci),
                sample="" if sample else sample_text(result),
                undefined=result.reason,
                note="" if note else result.note,
                leads=results.leaders.get(label) == run,
            )
            for run, result in found
        ]
        groups.append(LabelRows(label, sample, note, rows))
    return groups


def shared_text(texts: Sequence[str]) -> str:
    """Return the text that all share, empty where they differ."""
    return texts[0] if len(set(texts)) == 1 else ""


def sample_text(result: LabelMetrics) -> str:
    """Say on how many scans and patients a result stands."""
    text = f"{count(result.n_scans, 'scan')} of {count(result.n_patients, 'patient')}"
    positive = f"{result.n_positive:,} positive of {count(result.n_positive_patients, 'patient')}"
    unknown = f"; {result.n_unknown:,} unknown left out" if result.n_unknown else ""
    prevalence = f" ({100 * result.prevalence:.0f} %)" if result.prevalence is not None else ""
    return f"{text}, {positive}{prevalence}{unknown}"


@dataclass(frozen=True)
class MeanRow:
    """The mean over a run's labels."""

    look: Look
    auroc: str
    ap: str
    labels: str


def mean_rows(results: DataSetResults, looks: Sequence[Look]) -> list[MeanRow]:
    """Return the mean over labels of each run, with the labels that entered."""
    means = [(run, evaluation.metrics.mean) for run, evaluation in enumerate(results.evaluations) if evaluation]
    return [
        MeanRow(looks[run], share(mean.auroc), share(mean.ap), ", ".join(mean.labels))
        for run, mean in means
        if mean.labels
    ]


def difference_groups(results: DataSetResults, looks: Sequence[Look]) -> list[tuple[str, list[DifferenceRow]]]:
    """Return the table of differences: for every label, each run against its baseline."""
    groups = []
    for label in results.labels:
        rows = [difference_row(one, label, looks) for one in results.comparisons if label in one.auroc]
        if rows:
            groups.append((label, rows))
    return groups


def difference_row(one: Comparison, label: str, looks: Sequence[Look]) -> DifferenceRow:
    """Return one run against its baseline for one label."""
    auroc, ap = one.auroc[label], one.ap[label]
    return DifferenceRow(
        run=looks[one.run],
        baseline=as_subject(looks[one.baseline].label),
        auroc=signed(auroc.difference),
        auroc_ci=signed_interval(auroc.ci),
        ap=signed(ap.difference),
        ap_ci=signed_interval(ap.ci),
        p_holm=p_value(auroc.p_holm),
        verdict=VERDICTS[auroc.verdict],
        decided=auroc.verdict in {"higher", "lower"},
        note=auroc.reason or auroc.note,
    )
