"""Differences between two runs on the same scans, with intervals from the same resampled patients, and tests.

Two runs err on the same hard scans, so their difference varies less than either value. Resampling the patients once for
both keeps that correlation; comparing two separate intervals by eye loses it. For AUROC there is also the p value of
DeLong's test, clustered by patient where patients have several scans, and the same corrected for the number of labels
by Holm's method (1979), under which all labels called different are so with the stated confidence together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from fmct.console.errors import UsageError
from fmct.evaluation.confidence import (
    FEWEST_PATIENTS,
    Bootstrap,
    PatientCounts,
    patient_weights,
    percentile_interval,
)
from fmct.evaluation.delong import paired_test
from fmct.evaluation.metrics import Metric, Ranking
from fmct.evaluation.predictions import check_predictions
from fmct.evaluation.summary import why_undefined
from fmct.experiment.config import Config

SAME_SCANS = "evaluate both runs on the same manifest and split"


class Difference(Config):
    """A metric of run a minus that of run b, for one label.

    `se`, `z` and `p` are of `test`, for AUROC only; `p_holm` is corrected for all labels that have a p. What is
    undefined is None.
    """

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
    se: float | None = None
    z: float | None = None
    p: float | None = None
    p_holm: float | None = None
    test: str = ""

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
        For every label that both runs predict, the difference a - b with its interval, and for AUROC its test.

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
    tested = {label: one.p for label, one in differences.items() if one.p is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {label: one.model_copy(update={"p_holm": corrected.get(label)}) for label, one in differences.items()}


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number (Holm 1979, Scandinavian Journal of Statistics 6:65), in their order."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, steps)
    return [float(one) for one in corrected]


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
    tested: dict[str, Any] = {}
    if not reason:
        a, b = (Ranking.of(target, known[run].to_numpy(np.float64)) for run in ("a", "b"))
        weights = patient_weights(patient, target, settings.replicates, settings.seed)
        replicates = np.concatenate([a.value(metric, drawn) - b.value(metric, drawn) for drawn in weights])
        interval = percentile_interval(replicates, patients, settings.confidence)
        bounds, note = interval.bounds, interval.note
        once = np.ones((len(known), 1))
        value_a, value_b = float(a.value(metric, once)[0]), float(b.value(metric, once)[0])
        values = {"a": value_a, "b": value_b, "difference": value_a - value_b}
        if metric == "auroc" and patients.fewest >= FEWEST_PATIENTS:
            found = paired_test(target, known["a"], known["b"], patient, settings.confidence)
            tested = {"se": found.se, "z": found.z, "p": found.p, "test": found.method}
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
        **tested,
    )
