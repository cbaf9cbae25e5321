"""Logistic regression on frozen features, one per label, by scikit-learn.

N training scans, D features, L labels, Q scans asked about.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fmct.evaluation.whitening import Whitening

Floats = NDArray[np.floating]

MAX_ITERATIONS = 5000
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Logistic:
    """A fitted logistic regression per label: logits are ((x − mean) / scale) · weight + bias.

    Attributes:
        mean: (D,) of all training scans.
        scale: (D,) their standard deviation; 1 where a feature is constant.
        weight: (L, D).
        bias: (L,).
        unconverged: numbers of the labels whose fit hadn't converged after so many iterations.
    """

    mean: Floats
    scale: Floats
    weight: Floats
    bias: Floats
    unconverged: tuple[int, ...]

    def probabilities(self, features_QD: Floats) -> Floats:
        """Return (Q, L) probabilities."""
        logits = ((features_QD.astype(np.float64) - self.mean) / self.scale) @ self.weight.T + self.bias
        probabilities: Floats = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
        return probabilities

    def of_whitened(self, whitening: Whitening) -> Logistic:
        """Return what says of features, D, what this says of their whitened components."""
        weight = self.weight / self.scale
        bias = self.bias - weight @ self.mean
        return Logistic(whitening.mean, whitening.scale, weight @ whitening.components.T, bias, self.unconverged)


def fit_logistic(features_ND: Floats, targets_NL: Floats, c: float, balanced: bool) -> Logistic:
    """Fit scikit-learn's logistic regression with an L2 penalty to each label by itself.

    Args:
        features_ND: (N, D).
        targets_NL: (N, L) from 0 to 1, NaN where unknown: such scans are left out for that label. A share of readers
            counts as so much of a positive and the rest of a negative.
        c: inverse strength of the penalty.
        balanced: positives weigh as much as negatives, as with `class_weight="balanced"`.
    """
    scaler = StandardScaler().fit(features_ND.astype(np.float64))
    standardized = scaler.transform(features_ND.astype(np.float64))
    weights, biases, unconverged = [], [], []
    for number, target in enumerate(targets_NL.astype(np.float64).T):
        known = ~np.isnan(target)
        x, share = standardized[known], target[known]
        twice = np.concatenate([share, 1 - share])
        if balanced:
            twice *= np.repeat([0.5 * len(share) / share.sum(), 0.5 * len(share) / (1 - share).sum()], len(share))
        rows = np.flatnonzero(twice)  # a scan is there as a positive and as a negative, where readers disagree
        rows = rows[np.argsort(rows % len(share), kind="stable")]
        classes = np.repeat([1, 0], len(share))[rows]
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", ConvergenceWarning)
            model = LogisticRegression(C=c, max_iter=MAX_ITERATIONS, tol=TOLERANCE).fit(
                x[rows % len(share)], classes, sample_weight=twice[rows]
            )
        if any(issubclass(warning.category, ConvergenceWarning) for warning in said):
            unconverged.append(number)
        weights.append(model.coef_[0])
        biases.append(model.intercept_[0])
    return Logistic(scaler.mean_, scaler.scale_, np.stack(weights), np.array(biases), tuple(unconverged))
