"""AUROC and average precision, for one set of scores or for thousands of reweighted replicates at once.

N scans, P positives, M negatives, R replicates. The scores are sorted once; each replicate is then a column of weights
(how often every scan was drawn) and costs one cumulative sum, so that a bootstrap runs at the speed of memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Metric = Literal["auroc", "ap"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """The order of positive and negative scans under one score, ready to be weighted in many ways.

    Attributes:
        positives: (P,) rows of the positive scans, by ascending score.
        negatives: (M,) rows of the negative scans, by ascending score.
        positives_below: (P,) for each positive, how many positives score less.
        negatives_below: (P,) for each positive, how many negatives score less.
        negatives_up_to: (P,) the same, ties included.
    """

    positives: Integers
    negatives: Integers
    positives_below: Integers
    negatives_below: Integers
    negatives_up_to: Integers

    @classmethod
    def of(cls, target: ArrayLike, score: ArrayLike) -> Ranking:
        """Sort once.

        Args:
            target: (N,) 0 or 1; scans with unknown targets are left out beforehand.
            score: (N,) finite, higher for more likely positive.

        Raises:
            ValueError: when the shapes differ, a target isn't 0 or 1, or a score isn't finite.
        """
        targets, scores = np.asarray(target, dtype=np.float64), np.asarray(score, dtype=np.float64)
        if targets.ndim != 1 or targets.shape != scores.shape:
            raise ValueError(f"target {targets.shape} and score {scores.shape} must be vectors of one length")
        if not np.isin(targets, (0.0, 1.0)).all():
            raise ValueError("targets must be 0 or 1; leave scans with unknown targets out")
        if not np.isfinite(scores).all():
            raise ValueError("scores must be finite")
        order = np.argsort(scores, kind="stable")
        positives, negatives = order[targets[order] == 1], order[targets[order] == 0]
        return cls(
            positives=positives,
            negatives=negatives,
            positives_below=np.searchsorted(scores[positives], scores[positives], side="left"),
            negatives_below=np.searchsorted(scores[negatives], scores[positives], side="left"),
            negatives_up_to=np.searchsorted(scores[negatives], scores[positives], side="right"),
        )

    def auroc(self, weights: Floats) -> Floats:
        """Area under the ROC curve: the share of (positive, negative) pairs in the right order, ties counting half.

        Args:
            weights: (N, R) how often each replicate holds each scan.

        Returns:
            (R,) in [0, 1]; NaN where a replicate lacks a class.
        """
        positive, below = weights[self.positives], cumulative(weights[self.negatives])
        in_order = 0.5 * (below[self.negatives_below] + below[self.negatives_up_to])
        pairs = positive.sum(axis=0) * below[-1]
        return divided(np.einsum("pr,pr->r", positive, in_order), pairs)

    def ap(self, weights: Floats) -> Floats:
        """Average precision: the mean over positives of the precision at their own score (no interpolation).

        Args:
            weights: (N, R) how often each replicate holds each scan.

        Returns:
            (R,) in [0, 1]; NaN where a replicate lacks a class.
        """
        positive, negatives = weights[self.positives], cumulative(weights[self.negatives])
        positives = cumulative(positive)
        true_at_or_above = positives[-1] - positives[self.positives_below]
        false_at_or_above = negatives[-1] - negatives[self.negatives_below]
        found = true_at_or_above + false_at_or_above
        precision = np.divide(true_at_or_above, found, out=np.zeros_like(found), where=found > 0)
        total = np.where(negatives[-1] > 0, positives[-1], 0.0)
        return divided(np.einsum("pr,pr->r", positive, precision), total)

    def value(self, metric: Metric, weights: Floats) -> Floats:
        """Return the named metric of every replicate, (R,) for weights (N, R)."""
        return self.auroc(weights) if metric == "auroc" else self.ap(weights)


def cumulative(weights: Floats) -> Floats:
    """Return sums of the first 0, 1, ..., K rows: (K + 1, R) for weights (K, R)."""
    sums = np.zeros((weights.shape[0] + 1, weights.shape[1]))
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums


def divided(numerator: Floats, denominator: Floats) -> Floats:
    """Divide where the denominator is positive; NaN elsewhere."""
    undefined = np.full(denominator.shape, np.nan)
    quotient: Floats = np.divide(numerator, denominator, out=undefined, where=denominator > 0)
    return quotient


def unweighted(metric: Metric, target: ArrayLike, score: ArrayLike) -> float | None:
    """Return a metric of scans that count once each; None when one class is absent."""
    ranking = Ranking.of(target, score)
    once: NDArray[Any] = np.ones((len(ranking.positives) + len(ranking.negatives), 1))
    value = float(ranking.value(metric, once)[0])
    return None if np.isnan(value) else value


def auroc(target: ArrayLike, score: ArrayLike) -> float | None:
    """Area under the ROC curve, as scikit-learn's `roc_auc_score`.

    Args:
        target: (N,) 0 or 1.
        score: (N,) finite.

    Returns:
        A value in [0, 1], or None when one class is absent: there is no AUROC then, above all not 0.

    Raises:
        ValueError: on unequal lengths, targets other than 0 and 1, scores that aren't finite.
    """
    return unweighted("auroc", target, score)


def average_precision(target: ArrayLike, score: ArrayLike) -> float | None:
    """Average precision, as scikit-learn's `average_precision_score`.

    Args:
        target: (N,) 0 or 1.
        score: (N,) finite.

    Returns:
        A value in [0, 1], or None when one class is absent.

    Raises:
        ValueError: on unequal lengths, targets other than 0 and 1, scores that aren't finite.
    """
    return unweighted("ap", target, score)
