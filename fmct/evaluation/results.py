"""What the runs of a report found, brought together: results by data set, and differences from the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from fmct.console.errors import UsageError
from fmct.evaluation.comparison import Difference, paired_difference
from fmct.evaluation.confidence import Bootstrap
from fmct.evaluation.mean_differences import MeanDifference, mean_difference
from fmct.evaluation.run_folder import Evaluation, Run
from fmct.evaluation.summary import LabelMetrics


@dataclass(frozen=True)
class Comparison:
    """One run against one baseline on one data set; runs by their place in the report; mean: of AUROC over labels."""

    run: int
    baseline: int
    auroc: dict[str, Difference]
    ap: dict[str, Difference]
    mean: MeanDifference | None = None


@dataclass
class DataSetResults:
    """All runs on one data set.

    Attributes:
        name: of the data set, RUN/evaluations/NAME.
        evaluations: one per run of the report, None where it wasn't evaluated.
        labels: in the order in which they first come.
        comparisons: runs against the baselines they are paired with.
        leaders: for a label, the run whose AUROC is shown to be above that of every other run, if there is one.
        refusals: sentences saying which runs weren't compared, and why.
    """

    name: str
    evaluations: list[Evaluation | None]
    labels: list[str] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    leaders: dict[str, int] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)

    @property
    def evaluated(self) -> list[int]:
        """The runs that have a result here."""
        return [run for run, evaluation in enumerate(self.evaluations) if evaluation]

    def result(self, run: int, label: str) -> LabelMetrics | None:
        """Return a run's result for a label, None where it has none."""
        evaluation = self.evaluations[run]
        return evaluation.metrics.labels.get(label) if evaluation else None

    def predictions(self, run: int) -> pd.DataFrame | None:
        """Return a run's predictions, None where they weren't kept."""
        evaluation = self.evaluations[run]
        return evaluation.predictions if evaluation else None


def gather(runs: Sequence[Run], names: Sequence[str], settings: Bootstrap) -> list[DataSetResults]:
    """Bring the evaluations of all runs together by data set, and compare those that can be compared.

    Args:
        runs: the runs of a report.
        names: what each run is called in sentences.
        settings: of the bootstrap for differences.
    """
    gathered = []
    for data_set in sorted({name for run in runs for name in run.evaluations}):
        results = DataSetResults(data_set, [run.evaluations.get(data_set) for run in runs])
        everywhere = [e.metrics.labels for e in results.evaluations if e]
        results.labels = list(dict.fromkeys(label for labels in everywhere for label in labels))
        for run, baseline in pairs(runs, results.evaluated):
            compare(results, run, baseline, names, settings)
        results.leaders = find_leaders(results, settings)
        gathered.append(results)
    return gathered


def pairs(runs: Sequence[Run], evaluated: Sequence[int]) -> list[tuple[int, int]]:
    """Pair every pretrained classifier with the baselines of its mode, else those frozen or not as it is, else all."""
    baselines = [run for run in evaluated if runs[run].is_baseline]
    paired = []
    for run in evaluated:
        if runs[run].is_classifier and not runs[run].is_baseline:
            same = [one for one in baselines if runs[one].task.get("mode") == runs[run].task.get("mode")]
            alike = [one for one in baselines if runs[one].is_frozen == runs[run].is_frozen]
            paired += [(run, baseline) for baseline in same or alike or baselines]
    return paired


def compare(results: DataSetResults, run: int, baseline: int, names: Sequence[str], settings: Bootstrap) -> None:
    """Add a comparison to the results, or say why there can be none."""
    a, b = results.predictions(run), results.predictions(baseline)
    who = f"{names[run]} and {names[baseline]} weren't compared on {results.name}"
    if a is None or b is None:
        results.refusals.append(f"{who}: the predictions of one weren't kept.")
        return
    try:
        auroc, ap = (
            paired_difference(a, b, metric, settings.replicates, settings.seed, settings.confidence)
            for metric in ("auroc", "ap")
        )
        mean = mean_difference(a, b, settings)
    except UsageError as error:
        results.refusals.append(f"{who}: {error.what} ({error.where}).")
        return
    results.comparisons.append(Comparison(run, baseline, auroc, ap, mean))


def find_leaders(results: DataSetResults, settings: Bootstrap) -> dict[str, int]:
    """Find for every label the run that is shown to be better than each other run, by paired differences."""
    leaders = {}
    for label in results.labels:
        values = {run: found.auroc for run in results.evaluated if (found := results.result(run, label))}
        ranked = sorted(((value, run) for run, value in values.items() if value is not None), reverse=True)
        if len(ranked) > 1 and all(is_above(results, label, ranked[0][1], run, settings) for _, run in ranked[1:]):
            leaders[label] = ranked[0][1]
    return leaders


def is_above(results: DataSetResults, label: str, run: int, other: int, settings: Bootstrap) -> bool:
    """Say whether a run's AUROC is shown to be above another's, on the same scans."""
    a, b = results.predictions(run), results.predictions(other)
    if a is None or b is None:
        return False
    a, b = a[a["label"] == label], b[b["label"] == label]
    try:
        differences = paired_difference(a, b, "auroc", settings.replicates, settings.seed, settings.confidence)
    except UsageError:
        return False  # other scans: nothing is shown, and `compare` says so where it matters
    return differences[label].verdict == "higher"
