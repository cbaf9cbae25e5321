"""Pointwise confidence bands of ROC and precision-recall curves, from resampled patients.

A band says how much the curve would vary at each single place on its horizontal axis; that the whole curve lies within
it is less likely than the stated level. N scans, G places, R replicates.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmct.evaluation.confidence import FEWEST_PATIENTS, PatientCounts, patient_weights
from fmct.evaluation.metrics import Floats

PLACES: Final = np.linspace(0.0, 1.0, 101)
REPLICATES: Final = 500


class Band(NamedTuple):
    """A band over `PLACES`: (G,) each."""

    low: Floats
    high: Floats


def curve_band(
    curve: Literal["roc", "pr"],
    target: Floats,
    score: Floats,
    patient: NDArray[np.object_],
    confidence: float = 0.95,
    seed: int = 0,
) -> Band | None:
    """Resample patients, draw the curve of each replicate, and take percentiles at every place.

    Args:
        curve: "roc": sensitivity at each 1 − specificity; "pr": precision at each recall.
        target: (N,) 0 or 1, both present.
        score: (N,).
        patient: (N,) identifiers.
        confidence: pointwise coverage aimed at.
        seed: of the resampling.

    Returns:
        The band; None with fewer than 5 patients of a class, where percentiles are too narrow to be shown.
    """
    if PatientCounts.of(patient, target).fewest < FEWEST_PATIENTS:
        return None
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    positive_N1 = target[order, None]
    blocks = []
    for weights in patient_weights(patient, target, REPLICATES, seed):
        drawn = weights[order]
        true = np.cumsum(drawn * positive_N1, axis=0)[last_of_tie]
        false = np.cumsum(drawn * (1 - positive_N1), axis=0)[last_of_tie]
        pairs = zip(true.T, false.T, strict=True)
        heights = roc_heights if curve == "roc" else precision_heights
        blocks += [heights(t, f) for t, f in pairs if t[-1] > 0 and f[-1] > 0]
    low, high = np.quantile(np.stack(blocks), [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return Band(low, high)


def roc_heights(true: Floats, false: Floats) -> Floats:
    """Return sensitivity (G,) at each 1 − specificity, linear between thresholds, the upper end of vertical pieces.

    Args:
        true: (K,) positives at or above each threshold, descending thresholds; the last is all of them.
        false: (K,) negatives likewise.
    """
    rate = np.append(0.0, false / false[-1])
    found = np.append(0.0, true / true[-1])
    last = np.append(np.diff(rate) > 0, True)
    heights: Floats = np.interp(PLACES, rate[last], found[last])
    return heights


def precision_heights(true: Floats, false: Floats) -> Floats:
    """Return the precision (G,) where each recall is first reached, as average precision counts it.

    Args:
        true: (K,) positives at or above each threshold, descending thresholds; the last is all of them.
        false: (K,) negatives likewise.
    """
    recall, precision = true / true[-1], true / np.maximum(true + false, 1e-12)
    least = recall[recall > 0][0]
    reached = np.searchsorted(recall, np.maximum(PLACES, least) - 1e-12, side="left")
    heights: Floats = precision[np.minimum(reached, len(precision) - 1)]
    return heights
