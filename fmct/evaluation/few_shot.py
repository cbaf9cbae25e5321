"""Few-shot curves: what k positive and k negative patients give, by initialization, averaged over draws.

I initializations, S seeds, R replicates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from fmct import __version__
from fmct.evaluation.confidence import Bootstrap, PatientCounts
from fmct.evaluation.metrics import Floats
from fmct.evaluation.run_scores import LabelScores, side_by_side
from fmct.evaluation.seed_means import COVERS, NOTHING, SeedMean, bootstrapped, mean_over_labels, scarcest, seed_mean
from fmct.evaluation.summary import METRICS
from fmct.experiment.config import Config


class Shot(NamedTuple):
    """One run of a few-shot study."""

    initialization: str
    label: str
    k: int
    seed: int


class CurvePoint(Config):
    """Where the curve of an initialization is at k; a difference is to the baseline, over the seeds of both."""

    initialization: str
    k: int
    auroc: SeedMean
    ap: SeedMean
    auroc_difference: SeedMean
    ap_difference: SeedMean
    status: Literal["ok", "n/a"]
    reason: str


class LabelCurves(Config):
    """The curves of one label."""

    n_scans: int
    n_patients: int
    n_positive: int
    points: tuple[CurvePoint, ...]


class MeanCurves(Config):
    """Curves of the mean over labels: those with all runs at each k at which any label has them, the same for all k."""

    labels: tuple[str, ...]
    left_out: tuple[str, ...]
    points: tuple[CurvePoint, ...]


class Gap(Config):
    """A run that there isn't, and why."""

    initialization: str
    label: str
    k: int
    seed: int
    reason: str


class FewShot(Config):
    """The contents of fewshot.json."""

    baseline: str | None
    shots: tuple[int, ...]
    seeds: int
    initializations: tuple[str, ...]
    labels: dict[str, LabelCurves]
    mean: MeanCurves
    skipped: tuple[Gap, ...]
    failed: tuple[Gap, ...]
    covers: str = COVERS
    settings: Bootstrap
    fmct: str = __version__


Measured = dict[Shot, tuple[Floats, Floats]]
"""For each run (2,) values and (2, R) replicates of AUROC and average precision."""


def summarize_shots(
    planned: Sequence[Shot],
    predictions: Mapping[Shot, pd.DataFrame],
    skipped: Mapping[Shot, str],
    failed: Mapping[Shot, str],
    settings: Bootstrap,
    baseline: str | None,
) -> tuple[FewShot, pd.DataFrame]:
    """Compute all curves.

    Args:
        planned: every run of the study, there or not.
        predictions: of those that there are, all on the same scans.
        skipped: why runs weren't tried.
        failed: why runs failed.
        settings: of the bootstrap.
        baseline: initialization that others are compared with; None: there is none.

    Returns:
        The curves, and a table of all runs: initialization, label, k, seed, auroc, ap, n_scans, n_positive, reason.

    Raises:
        UsageError: when runs weren't evaluated on the same scans.
    """
    labels = list(dict.fromkeys(shot.label for shot in planned))
    gaps = {**skipped, **failed}
    measured: Measured = {}
    curves: dict[str, LabelCurves] = {}
    tables: dict[str, LabelScores] = {}
    for label in labels:
        mine = [shot for shot in planned if shot.label == label]
        there: dict[Any, pd.DataFrame] = {shot: predictions[shot] for shot in mine if shot in predictions}
        if not there:
            reasons = sorted({gaps.get(shot, "no run") for shot in mine})
            curves[label] = LabelCurves(
                n_scans=0, n_patients=0, n_positive=0, points=tuple(nothing_at(mine, "; ".join(reasons)))
            )
            continue
        table = tables[label] = side_by_side(label, there)
        if table.reason:
            curves[label] = LabelCurves(**table.counts(), points=tuple(nothing_at(mine, table.reason)))
            continue
        values, replicates = bootstrapped(table, settings, METRICS)
        found = {shot: (values[:, column], replicates[:, column]) for column, shot in enumerate(there)}
        measured |= found
        points = points_of(mine, found, table.patients, settings, baseline, gaps)
        curves[label] = LabelCurves(**table.counts(), points=tuple(points))
    whole, possible = complete(planned, measured)
    few_shot = FewShot(
        baseline=baseline,
        shots=tuple(sorted({shot.k for shot in planned})),
        seeds=len({shot.seed for shot in planned}),
        initializations=tuple(dict.fromkeys(shot.initialization for shot in planned)),
        labels=curves,
        mean=MeanCurves(
            labels=tuple(whole),
            left_out=tuple(label for label in labels if label not in whole),
            points=tuple(mean_points(planned, [tables[label] for label in whole], possible, settings, baseline)),
        ),
        skipped=tuple(Gap(**shot._asdict(), reason=reason) for shot, reason in skipped.items()),
        failed=tuple(Gap(**shot._asdict(), reason=reason) for shot, reason in failed.items()),
        settings=settings,
    )
    return few_shot, table_of_runs(planned, measured, curves, gaps)


def points_of(
    planned: Sequence[Shot],
    measured: Measured,
    patients: PatientCounts,
    settings: Bootstrap,
    baseline: str | None,
    gaps: Mapping[Shot, str],
) -> list[CurvePoint]:
    """Average the runs of every initialization and k, and compare them with the baseline's, seed by seed."""
    points = []
    for initialization, k in dict.fromkeys((shot.initialization, shot.k) for shot in planned):
        mine = [shot for shot in planned if (shot.initialization, shot.k) == (initialization, k)]
        there = [shot for shot in mine if shot in measured]
        if not there:
            reasons = sorted({gaps.get(shot, "no run") for shot in mine})
            points += nothing_at(mine, "; ".join(reasons))
            continue
        pairs = [] if baseline in {None, initialization} else with_baseline(there, measured, str(baseline))
        means: dict[str, SeedMean] = {}
        for row, metric in enumerate(METRICS):
            values = np.array([measured[shot][0][row] for shot in there])
            replicates = np.array([measured[shot][1][row] for shot in there])
            means[metric] = seed_mean(values, replicates, patients, settings)
            means[f"{metric}_difference"] = NOTHING
            if pairs:
                values = np.array([measured[a][0][row] - measured[b][0][row] for a, b in pairs])
                replicates = np.array([measured[a][1][row] - measured[b][1][row] for a, b in pairs])
                means[f"{metric}_difference"] = seed_mean(values, replicates, patients, settings, lowest=-1.0)
        missing = len(mine) - len(there)
        reason = f"{missing} of {len(mine)} seeds have no run" if missing else ""
        points.append(CurvePoint(initialization=initialization, k=k, **means, status="ok", reason=reason))
    return points


def with_baseline(shots: Sequence[Shot], measured: Measured, baseline: str) -> list[tuple[Shot, Shot]]:
    """Return runs with the baseline's run of the same label, k and seed, where there is one."""
    pairs = [(shot, shot._replace(initialization=baseline)) for shot in shots]
    return [(mine, other) for mine, other in pairs if other in measured]


def nothing_at(shots: Sequence[Shot], reason: str) -> list[CurvePoint]:
    """Return points without a value, with the reason."""
    empty = dict.fromkeys(("auroc", "ap", "auroc_difference", "ap_difference"), NOTHING)
    places = dict.fromkeys((shot.initialization, shot.k) for shot in shots)
    return [CurvePoint(initialization=name, k=k, **empty, status="n/a", reason=reason) for name, k in places]


def complete(planned: Sequence[Shot], measured: Measured) -> tuple[list[str], set[int]]:
    """Return the labels that enter the mean, and the k at which there is one."""
    lacking = {(shot.label, shot.k) for shot in planned if shot not in measured}
    possible = {shot.k for shot in planned if (shot.label, shot.k) not in lacking}
    labels = dict.fromkeys(shot.label for shot in planned)
    return [label for label in labels if possible and not any((label, k) in lacking for k in possible)], possible


def mean_points(
    planned: Sequence[Shot],
    tables: Sequence[LabelScores],
    possible: set[int],
    settings: Bootstrap,
    baseline: str | None,
) -> list[CurvePoint]:
    """Average the curves of labels; the scarcest label decides whether there is an interval."""
    if not tables:
        return nothing_at(planned, "no label has all runs")
    gone = nothing_at([shot for shot in planned if shot.k not in possible], "no label has all runs")
    places = list(dict.fromkeys(shot._replace(label="") for shot in planned if shot.k in possible))
    runs = [[place._replace(label=table.label) for place in places] for table in tables]
    values, replicates = mean_over_labels(tables, runs, settings, METRICS)
    measured = {place: (values[:, column], replicates[:, column]) for column, place in enumerate(places)}
    return points_of(places, measured, scarcest(tables), settings, baseline, {}) + gone


def table_of_runs(
    planned: Sequence[Shot], measured: Measured, curves: Mapping[str, LabelCurves], gaps: Mapping[Shot, str]
) -> pd.DataFrame:
    """Return one row per planned run; NaN and a reason where there is no result."""
    rows = []
    for shot in planned:
        values = measured[shot][0] if shot in measured else np.full(len(METRICS), np.nan)
        label = curves[shot.label]
        undefined = "" if shot in measured else label.points[0].reason
        rows.append(
            shot._asdict()
            | dict(zip(METRICS, map(float, values), strict=True))
            | {"n_scans": label.n_scans, "n_positive": label.n_positive, "reason": gaps.get(shot, undefined)}
        )
    return pd.DataFrame(rows)
