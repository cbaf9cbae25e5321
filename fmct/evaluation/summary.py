"""metrics.json: what the predictions of one run on one data set amount to, label by label, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from fmct import __version__
from fmct.console.errors import UsageError, require_file
from fmct.evaluation.confidence import Bootstrap, PatientCounts, patient_weights, percentile_interval
from fmct.evaluation.metrics import Metric, Ranking
from fmct.evaluation.predictions import AGAIN, check_predictions
from fmct.experiment.config import Config

METRICS: tuple[Metric, ...] = ("auroc", "ap")


class LabelMetrics(Config):
    """One label's result. What is undefined is None and `reason` says why; it never counts as 0.

    `note` says what to beware of in the intervals, or why there is none.
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


class MeanMetrics(Config):
    """Unweighted mean over the labels that have a result, which are listed."""

    auroc: float | None
    ap: float | None
    labels: tuple[str, ...]
    left_out: tuple[str, ...]


class Metrics(BaseModel):
    """The contents of metrics.json; an evaluation may add keys of its own (data set, weights, ...)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    labels: dict[str, LabelMetrics]
    mean: MeanMetrics
    settings: Bootstrap
    fmct: str


def summarize(
    predictions: pd.DataFrame, bootstrap: int = 2000, seed: int = 0, confidence: float = 0.95
) -> dict[str, Any]:
    """Compute AUROC and average precision of every label, with intervals by a bootstrap of patients.

    Args:
        predictions: see `fmct.evaluation.predictions.check_predictions`; rows with unknown targets are counted and
            otherwise ignored.
        bootstrap: number of replicates.
        seed: of the resampling; the result doesn't depend on the order of the rows.
        confidence: coverage that the intervals aim at.

    Returns:
        A dictionary ready for JSON, laid out as `Metrics`: per label n_scans, n_patients, n_positive, prevalence,
        auroc, auroc_ci, ap, ap_ci, status, reason, note; their mean; the settings; the version of fmct.

    Raises:
        UsageError: when the predictions break their schema.
    """
    settings = Bootstrap.of(bootstrap, seed, confidence)
    predictions = check_predictions(predictions, "predictions")
    labels = {str(label): label_metrics(rows, settings) for label, rows in predictions.groupby("label", sort=False)}
    metrics = Metrics(labels=labels, mean=mean_metrics(labels), settings=settings, fmct=__version__)
    return metrics.model_dump(mode="json")


def label_metrics(rows: pd.DataFrame, settings: Bootstrap) -> LabelMetrics:
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
    ranking = Ranking.of(target, score)
    blocks = [
        [ranking.value(metric, weights) for metric in METRICS]
        for weights in patient_weights(patient, target, settings.replicates, settings.seed)
    ]
    replicates = np.concatenate(blocks, axis=1)
    intervals = [percentile_interval(values, patients, settings.confidence) for values in replicates]
    once = np.ones((len(known), 1))
    notes = {f"{metric}: {interval.note}": interval.note for metric, interval in zip(METRICS, intervals, strict=True)}
    shared = len(set(notes.values())) == 1
    return LabelMetrics(
        **counts,
        auroc=float(ranking.auroc(once)[0]),
        auroc_ci=intervals[0].bounds,
        ap=float(ranking.ap(once)[0]),
        ap_ci=intervals[1].bounds,
        status="ok",
        reason="",
        note=intervals[0].note if shared else "; ".join(text for text, note in notes.items() if note),
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
