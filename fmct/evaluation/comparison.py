"""Differences between two runs on the same scans, with intervals from the same resampled patients.

Two runs err on the same hard scans, so their difference varies less than either value. Resampling the patients once for
both keeps that correlation; comparing two separate intervals by eye loses it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from fmct.console.errors import UsageError
from fmct.evaluation.confidence import Bootstrap, PatientCounts, patient_weights, percentile_interval
from fmct.evaluation.metrics import Metric, Ranking
from fmct.evaluation.predictions import check_predictions
from fmct.evaluation.summary import why_undefined
from fmct.experiment.config import Config

SAME_SCANS = "evaluate both runs on the same manifest and split"


class Difference(Config):
    """A metric of run a minus that of run b, for one label."""

    metric: Metric
    a: float | None
    b: float | None
    difference: float | None
    ci: tuple[float, float] | None
    n_scans: int
    n_patients: int
    n_positive: int
    status: Literal["ok", "n/a"]
    reason: str
    note: str

    @property
    def verdict(self) -> Literal["higher", "lower", "undecided", "n/a"]:
        """Say whether the interval lies on one side of zero."""
        if self.status == "n/a":
            return "n/a"
        if self.ci is None or self.ci[0] <= 0 <= self.ci[1]:
            return "undecided"
        return "higher" if self.ci[0] > 0 else "lower"


def paired_difference(
    predictions_a: pd.DataFrame,
    predictions_b: pd.DataFrame,
    metric: Metric = "auroc",
    bootstrap: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Difference]:
    """Compare two runs label by label, joined by scan_id.

    Args:
        predictions_a: rows as in `fmct.evaluation.predictions.check_predictions`.
        predictions_b: the same scans under another run.
        metric: "auroc" or "ap".
        bootstrap: number of replicates.
        seed: of the resampling of patients.
        confidence: coverage that the intervals aim at.

    Returns:
        For every label that both runs predict, the difference a - b with its interval.

    Raises:
        UsageError: when no label is common, or the scans, their patients or their targets differ; says how many.
    """
    settings = Bootstrap.of(bootstrap, seed, confidence)
    predictions_a, predictions_b = check_predictions(predictions_a, "run a"), check_predictions(predictions_b, "run b")
    rows_b = dict(tuple(predictions_b.groupby("label")))
    differences = {}
    for label, rows_a in predictions_a.groupby("label", sort=False):
        if label in rows_b:
            rows = join_scans(rows_a, rows_b[label], str(label))
            differences[str(label)] = label_difference(rows, metric, settings)
    if not differences:
        raise UsageError("the two runs predict no label in common", "their predictions", SAME_SCANS)
    return differences


def join_scans(rows_a: pd.DataFrame, rows_b: pd.DataFrame, label: str) -> pd.DataFrame:
    """Join two runs' rows of one label by scan_id, refusing to compare different scans.

    Returns:
        One row per scan: scan_id, patient_id, target, a and b (probabilities).
    """
    shared = ["scan_id", "patient_id", "target"]
    rows = rows_a[[*shared, "probability"]].merge(
        rows_b[[*shared, "probability"]], on="scan_id", how="outer", suffixes=("_a", "_b"), indicator=True
    )
    only_a, only_b = int((rows["_merge"] == "left_only").sum()), int((rows["_merge"] == "right_only").sum())
    where = f"label {label}"
    if only_a or only_b:
        what = f"the scans differ: {only_a} are in the first run only, {only_b} in the second only"
        raise UsageError(what, where, SAME_SCANS)
    for column in ("patient_id", "target"):
        a, b = rows[f"{column}_a"], rows[f"{column}_b"]
        differing = int(((a != b) & ~(a.isna() & b.isna())).sum())
        if differing:
            raise UsageError(
                f"{column} differs between the runs for {differing} of {len(rows)} scans", where, SAME_SCANS
            )
    return rows.rename(
        columns={"patient_id_a": "patient_id", "target_a": "target", "probability_a": "a", "probability_b": "b"}
    )


def label_difference(rows: pd.DataFrame, metric: Metric, settings: Bootstrap) -> Difference:
    """Compute one label's difference from joined rows."""
    known = rows[rows["target"].notna()]
    target, patient = known["target"].to_numpy(np.float64), known["patient_id"].to_numpy(object)
    patients = PatientCounts.of(patient, target)
    reason = why_undefined(target)
    values: dict[str, float | None] = {"a": None, "b": None, "difference": None}
    bounds, note = None, ""
    if not reason:
        a, b = (Ranking.of(target, known[run].to_numpy(np.float64)) for run in ("a", "b"))
        weights = patient_weights(patient, target, settings.replicates, settings.seed)
        replicates = np.concatenate([a.value(metric, drawn) - b.value(metric, drawn) for drawn in weights])
        interval = percentile_interval(replicates, patients, settings.confidence)
        bounds, note = interval.bounds, interval.note
        once = np.ones((len(known), 1))
        value_a, value_b = float(a.value(metric, once)[0]), float(b.value(metric, once)[0])
        values = {"a": value_a, "b": value_b, "difference": value_a - value_b}
    return Difference(
        metric=metric,
        **values,
        ci=bounds,
        n_scans=len(known),
        n_patients=patients.total,
        n_positive=int(target.sum()),
        status="n/a" if reason else "ok",
        reason=reason,
        note=note,
    )
