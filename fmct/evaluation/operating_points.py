"""Sensitivity and specificity at thresholds that were fixed beforehand, on the run's validation scans.

N scans, T thresholds, R replicates. A scan is called positive when its probability is at or above the threshold. Each
threshold lies halfway between two neighboring probabilities of the validation scans: the lowest one that reaches a
specificity, or the highest one that reaches a sensitivity. The scans that are evaluated have no part in it: a threshold
found on them would flatter the result. Intervals hold the threshold fixed, as a user of the model would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from fmct.evaluation.confidence import FEWEST_PATIENTS, Bootstrap, PatientCounts, joint_note, percentile_interval
from fmct.evaluation.metrics import Floats, divided
from fmct.experiment.config import Config

Rate = Literal["sensitivity", "specificity"]
RATES: tuple[Rate, ...] = ("sensitivity", "specificity")
TARGETS = (0.80, 0.90, 0.95)
ENOUGH_BEYOND = 5


class Threshold(Config):
    """A threshold for one label, found on validation scans; what couldn't be found is None and `reason` says why."""

    fixed: Rate
    target: float
    threshold: float | None
    sensitivity: float | None
    specificity: float | None
    reason: str
    note: str


class LabelThresholds(Config):
    """The thresholds of one label, and how many validation scans they rest on."""

    n_positive: int
    n_negative: int
    n_positive_patients: int
    n_negative_patients: int
    found: tuple[Threshold, ...]


class Thresholds(Config):
    """Where thresholds come from: which scans, and what was found; `reason` says why there are none."""

    manifest: str
    splits: tuple[str, ...]
    sites: tuple[str, ...]
    n_scans: int
    labels: dict[str, LabelThresholds]
    reason: str = ""


class OperatingPoint(Config):
    """What a threshold does to the scans evaluated; what is undefined is None and `reason` says why."""

    fixed: Rate
    target: float
    threshold: float | None
    sensitivity: float | None = None
    sensitivity_ci: tuple[float, float] | None = None
    specificity: float | None = None
    specificity_ci: tuple[float, float] | None = None
    status: Literal["ok", "n/a"]
    reason: str
    note: str


def find_thresholds(rows: pd.DataFrame) -> LabelThresholds:
    """Find one label's thresholds on the predictions of validation scans (one row per scan)."""
    known = rows[rows["target"].notna()]
    target, score = known["target"].to_numpy(np.float64), known["probability"].to_numpy(np.float64)
    patients = PatientCounts.of(known["patient_id"].to_numpy(object), target)
    return LabelThresholds(
        n_positive=int((target == 1).sum()),
        n_negative=int((target == 0).sum()),
        n_positive_patients=patients.with_positive,
        n_negative_patients=patients.with_negative,
        found=tuple(find_threshold(target, score, patients, rate, aim) for rate in RATES for aim in TARGETS),
    )


def find_threshold(target: Floats, score: Floats, patients: PatientCounts, rate: Rate, aim: float) -> Threshold:
    """Find the threshold that reaches a rate on (N,) validation scans and gives away least of the other."""
    kind = "positive" if rate == "sensitivity" else "negative"
    number = patients.with_positive if rate == "sensitivity" else patients.with_negative
    beyond = number * (1 - aim)
    needed = max(FEWEST_PATIENTS, int(np.ceil(1 / (1 - aim) - 1e-9)))
    nothing = {"threshold": None, "sensitivity": None, "specificity": None, "note": ""}
    if min(patients.with_positive, patients.with_negative) == 0 or number < needed:
        few = f"only {number} validation patients with {kind} scans; {rate} {aim:.2f} needs {needed}"
        other = "negative" if kind == "positive" else "positive"
        reason = few if number < needed else f"no validation scan is {other}"
        return Threshold(fixed=rate, target=aim, reason=reason, **nothing)
    values = np.unique(score)
    cuts = values[:-1] + np.diff(values) / 2
    cuts = np.where(cuts > values[:-1], cuts, values[1:])  # between floats next to each other there is nothing
    sensitivity, specificity = rates_at(cuts, target, score)
    reached = np.flatnonzero((sensitivity if rate == "sensitivity" else specificity) >= aim - 1e-12)
    if not len(reached):
        reason = f"no threshold tells validation scans apart with {rate} {aim:.2f} or more"
        return Threshold(fixed=rate, target=aim, reason=reason, **nothing)
    chosen = int(reached[-1] if rate == "sensitivity" else reached[0])
    return Threshold(
        fixed=rate,
        target=aim,
        threshold=float(cuts[chosen]),
        sensitivity=float(sensitivity[chosen]),
        specificity=float(specificity[chosen]),
        reason="",
        note="" if beyond > ENOUGH_BEYOND - 1e-9 else f"rests on {number} patients with {kind} validation scans only",
    )


def rates_at(cuts: Floats, target: Floats, score: Floats) -> tuple[Floats, Floats]:
    """Return sensitivity and specificity of (T,) thresholds on (N,) scans, each (T,)."""
    positive, negative = np.sort(score[target == 1]), np.sort(score[target == 0])
    sensitivity = 1 - np.searchsorted(positive, cuts, side="left") / len(positive)
    return sensitivity, np.searchsorted(negative, cuts, side="left") / len(negative)


def point_terms(thresholds: Sequence[Threshold], target: Floats, score: Floats) -> Floats:
    """Return what is summed over scans: (2 + 2 T, N), for the T thresholds that were found.

    Positives, negatives, then by threshold positives called positive, then by threshold negatives called negative.
    """
    cuts = np.array([one.threshold for one in thresholds if one.threshold is not None])
    called = score >= cuts[:, None]
    classes = np.stack([target, 1 - target])
    return np.concatenate([classes, called * target, ~called * (1 - target)])


def operating_points(
    thresholds: Sequence[Threshold], once: Floats, sums: Floats, patients: PatientCounts, settings: Bootstrap
) -> tuple[OperatingPoint, ...]:
    """Put sensitivity, specificity and their intervals together.

    Args:
        thresholds: all of them, found or not.
        once: (2 + 2 T, 1) sums of `point_terms`.
        sums: (2 + 2 T, R) sums of terms times the weights of every replicate.
        patients: how many patients stand behind each class.
        settings: of the bootstrap.
    """
    values, replicates = point_rates(once), point_rates(sums)
    place, points = 0, []
    for one in thresholds:
        if one.threshold is None:
            said = {"status": "n/a", "reason": one.reason, "note": ""}
            points.append(OperatingPoint(fixed=one.fixed, target=one.target, threshold=None, **said))
            continue
        sensitivity, specificity = (
            percentile_interval(replicates[rate, place], patients, settings.confidence) for rate in (0, 1)
        )
        notes = joint_note({"sensitivity": sensitivity.note, "specificity": specificity.note})
        points.append(
            OperatingPoint(
                fixed=one.fixed,
                target=one.target,
                threshold=one.threshold,
                sensitivity=float(values[0, place, 0]),
                sensitivity_ci=sensitivity.bounds,
                specificity=float(values[1, place, 0]),
                specificity_ci=specificity.bounds,
                status="ok",
                reason="",
                note="; ".join(filter(None, (f"threshold {one.note}" if one.note else "", notes))),
            )
        )
        place += 1
    return tuple(points)


def point_rates(sums: Floats) -> Floats:
    """Return sensitivity and specificity, (2, T, R), of (2 + 2 T, R) sums; NaN where a replicate lacks the class."""
    called = sums[2:].reshape(2, -1, sums.shape[1])
    return divided(called, np.broadcast_to(sums[:2, None], called.shape))
