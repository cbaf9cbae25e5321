"""Whitening by unlabeled scans: what it makes of features, and that a probe on it is one on the features."""

from __future__ import annotations

import numpy as np
import pytest

from fmct.console.errors import UsageError
from fmct.evaluation.logistic import fit_logistic
from fmct.evaluation.whitening import fit_whitening


def features(scans: int = 200, seed: int = 0) -> np.ndarray:
    """Six features of three things that vary, on unlike scales, and one that is constant."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(scans, 3)) * [3.0, 1.0, 0.3]
    mixed = hidden @ np.random.default_rng(9).normal(size=(3, 6))
    return np.concatenate([mixed * [1, 1e-3, 50, 1, 1, 1] - 7, np.full((scans, 1), 4.0)], 1).astype(np.float32)


def test_components_are_uncorrelated_with_spread_one() -> None:
    white = fit_whitening(features(), 3)(features())
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(3), atol=1e-4)


@pytest.mark.parametrize(("scans", "asked", "given"), [(200, 2, 2), (200, 50, 3), (3, 50, 2)])
def test_there_are_no_more_components_than_scans_span(scans: int, asked: int, given: int) -> None:
    exact = features(scans).astype(np.float64)
    exact[:, :6] = np.random.default_rng(1).normal(size=(scans, 3)) @ np.random.default_rng(2).normal(size=(3, 6))
    assert fit_whitening(exact, asked).components.shape == (7, given)


def test_a_probe_on_components_is_one_on_features() -> None:
    whitening, train, asked = fit_whitening(features(), 3), features(30, 1), features(20, 2)
    targets = (train[:, [0, 4]] > np.median(train[:, [0, 4]], 0)).astype(np.float64)
    fitted = fit_logistic(whitening(train), targets, 0.1, balanced=False)
    np.testing.assert_allclose(
        fitted.of_whitened(whitening).probabilities(asked), fitted.probabilities(whitening(asked)), atol=1e-9
    )


def test_features_that_are_all_alike_are_refused() -> None:
    with pytest.raises(UsageError, match="the same features"):
        fit_whitening(np.ones((5, 4)), 2)
