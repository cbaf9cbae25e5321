"""metrics.json: what the predictions of one run on one data set amount to, label by label, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from fmct import __version__
from fmct.console.errors import UsageError, require_file
from fmct.evaluation.calibration import Calibration, CalibrationMetrics, calibration_metrics
from fmct.evaluation.confidence import Bootstrap, PatientCounts, joint_note, patient_weights, percentile_interval
from fmct.evaluation.facts import EvaluatedData, Facts, facts_of
from fmct.evaluation.metrics import Metric, Ranking
from fmct.evaluation.operating_points import OperatingPoint, Threshold, Thresholds, operating_points, point_terms
from fmct.evaluation.predictions import AGAIN, check_predictions
from fmct.evaluation.subgroups import Subgroups, subgroups
from fmct.experiment.config import Config

METRICS: tuple[Metric, ...] = ("auroc", "ap")


class LabelMetrics(Config):
    """One label's result. What is undefined is None and `reason` says why; it never counts as 0.

    `note` says what to beware of in the intervals of AUROC and average precision, or why there is none.
    """

    n_scans: int
    n_patients: int
    n_positive: int
    n_positive_patients: int
    n_unknown: int
    prevalence: float | None
    auroc: float | None
    auroc_ci: tuple[float, float] | None
    ap: float | None
    ap_ci: tuple[float, float] | None
    status: Literal["ok", "n/a"]
    reason: str
    note: str
    calibration: CalibrationMetrics | None = None
    operating_points: tuple[OperatingPoint, ...] = ()


class MeanMetrics(Config):
    """Unweighted mean over the labels that have a result, which are listed."""

    auroc: float | None
    ap: float | None
    labels: tuple[str, ...]
    left_out: tuple[str, ...]


class Metrics(BaseModel):
    """The contents of metrics.json; keys of one's own may be added.

    Files that earlier versions wrote lack calibration, operating points, subgroups and thresholds.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    labels: dict[str, LabelMetrics]
    mean: MeanMetrics
    settings: Bootstrap
    data: EvaluatedData | None = None
    thresholds: Thresholds | None = None
    subgroups: Subgroups | None = None
    fmct: str


def summarize(
    predictions: pd.DataFrame, bootstrap: int = 2000, seed: int = 0, confidence: float = 0.95
) -> dict[str, Any]:
    """Compute what predictions amount to: metrics.json is this and nothing else.

    `summarize(read_predictions(path))` gives the metrics.json beside predictions.parquet again.

    Args:
        predictions: see `fmct.evaluation.predictions.check_predictions`; rows with unknown targets are counted and
            otherwise ignored. Thresholds and subgroups are as `fmct.evaluation.facts` finds them attached.
        bootstrap: number of replicates.
        seed: of the resampling; the result doesn't depend on the order of the rows.
        confidence: coverage that the intervals aim at.

    Returns:
        A dictionary ready for JSON, laid out as `Metrics`: per label counts, AUROC and average precision with
        intervals, calibration, sensitivity and specificity at thresholds fixed before; their mean; subgroups; the
        settings; the version of fmct.

    Raises:
        UsageError: when the predictions break their schema.
    """
    settings = Bootstrap.of(bootstrap, seed, confidence)
    predictions = check_predictions(predictions, "predictions")
    facts = facts_of(predictions)
    labels = {
        str(label): label_metrics(rows, settings, thresholds_for(str(label), facts))
        for label, rows in predictions.groupby("label", sort=False)
    }
    metrics = Metrics(
        labels=labels,
        mean=mean_metrics(labels),
        settings=settings,
        data=facts.data,
        thresholds=facts.thresholds,
        subgroups=subgroups(predictions, facts.subgroups, confidence) if facts.subgroups else None,
        fmct=__version__,
    )
    return metrics.model_dump(mode="json")


def thresholds_for(label: str, facts: Facts) -> tuple[Threshold, ...]:
    """Return the thresholds of a label, none where nobody looked for any."""
    of_label = facts.thresholds.labels.get(label) if facts.thresholds else None
    return of_label.found if of_label else ()


def label_metrics(rows: pd.DataFrame, settings: Bootstrap, thresholds: tuple[Threshold, ...] = ()) -> LabelMetrics:
    """Compute the result of one label's rows (one row per scan)."""
    known = rows[rows["target"].notna()].sort_values("scan_id")
    target, score = known["target"].to_numpy(np.float64), known["probability"].to_numpy(np.float64)
    patient = known["patient_id"].to_numpy(object)
    patients = PatientCounts.of(patient, target)
    counts: dict[str, Any] = {
        "n_scans": len(known),
        "n_patients": patients.total,
        "n_positive": int(target.sum()),
        "n_positive_patients": patients.with_positive,
        "n_unknown": len(rows) - len(known),
        "prevalence": float(target.mean()) if len(known) else None,
    }
    reason = why_undefined(target)
    if reason:
        nothing = dict.fromkeys(("auroc", "auroc_ci", "ap", "ap_ci"))
        return LabelMetrics(**counts, **nothing, status="n/a", reason=reason, note="")
    ranking, calibration = Ranking.of(target, score), Calibration.of(target, score)
    terms, draw = point_terms(thresholds, target, score), (settings.replicates, settings.seed)
    ranked, called = [], []
    for weights in patient_weights(patient, target, *draw):
        ranked.append([ranking.value(metric, weights) for metric in METRICS])
        called.append(terms @ weights)
    replicates = np.concatenate(ranked, axis=1)
    unstratified = patient_weights(
        patient, np.zeros_like(target), *draw
    )  # how common a finding is is part of calibration
    summed = np.concatenate([calibration.terms @ weights for weights in unstratified], axis=1)
    intervals = [percentile_interval(values, patients, settings.confidence) for values in replicates]
    once = np.ones((len(known), 1))
    return LabelMetrics(
        **counts,
        auroc=float(ranking.auroc(once)[0]),
        auroc_ci=intervals[0].bounds,
        ap=float(ranking.ap(once)[0]),
        ap_ci=intervals[1].bounds,
        status="ok",
        reason="",
        note=joint_note({metric: interval.note for metric, interval in zip(METRICS, intervals, strict=True)}),
        calibration=calibration_metrics(calibration, summed, patients, settings),
        operating_points=operating_points(thresholds, terms @ once, np.concatenate(called, axis=1), patients, settings),
    )


def why_undefined(target: np.ndarray) -> str:
    """Return why (N,) known targets allow no AUROC, or an empty string when they do."""
    if not len(target):
        return "no scan has a known target"
    if target.min() == target.max():
        only = "positive" if target[0] else "negative"
        return f"only one class among {len(target)} scans (all {only})"
    return ""


def mean_metrics(labels: dict[str, LabelMetrics]) -> MeanMetrics:
    """Average the labels that have a result, and say which they were."""
    entered = {name: label for name, label in labels.items() if label.status == "ok"}
    return MeanMetrics(
        auroc=mean_of([label.auroc for label in entered.values()]),
        ap=mean_of([label.ap for label in entered.values()]),
        labels=tuple(entered),
        left_out=tuple(name for name in labels if name not in entered),
    )


def mean_of(values: list[float | None]) -> float | None:
    """Return the mean of defined values, None when there is none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def read_metrics(path: Path) -> Metrics:
    """Read metrics.json.

    Raises:
        UsageError: when the file is missing or laid out otherwise.
    """
    require_file(path, "metrics file", AGAIN)
    try:
        return Metrics.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"metrics.json isn't laid out as this version writes it: {key} {first['msg']}", path, AGAIN
        ) from error
