"""Whitening of frozen features by scans whose labels nobody looks at: what few labels learn best from.

With k + k labeled scans the direction between their means is mostly chance when features are many and alike. All
scans of an archive say without a label which directions there are; the first of them, each at the same spread, leave
a probe fewer ways to go wrong.
N scans, D features, P components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from fmct.console.errors import UsageError
from fmct.experiment.config import Config

Floats = NDArray[np.floating]
LEAST_SPREAD = 1e-6  # of a component against the first: what is less is rounding


class WhiteningConfig(Config):
    """How many directions are kept, and of which scans they are."""

    components: PositiveInt = Field(128, description="principal components that are kept, or all there are")
    splits: tuple[str, ...] = Field(
        ("pretrain", "train"), min_length=1, description="scans that they are of, with or without labels; not the test"
    )


@dataclass(frozen=True)
class Whitening:
    """Features are turned into ((x − mean) / scale) · components.

    Attributes:
        mean: (D,) of the unlabeled scans.
        scale: (D,) their standard deviation; 1 where a feature is constant.
        components: (D, P) principal axes of the standardized features, divided by the spread along them.
    """

    mean: Floats
    scale: Floats
    components: Floats

    def __call__(self, features_ND: Floats) -> Floats:
        """Return (N, P) whitened features."""
        white: Floats = ((features_ND.astype(np.float64) - self.mean) / self.scale) @ self.components
        return white


def fit_whitening(features_ND: Floats, components: int) -> Whitening:
    """Find the first principal components of standardized features.

    Args:
        features_ND: (N, D) of scans without labels.
        components: how many are kept; fewer where the scans don't span as many.

    Raises:
        UsageError: when all scans have the same features.
    """
    features = features_ND.astype(np.float64)
    mean, scale = features.mean(0), features.std(0)
    scale[scale == 0] = 1.0
    _, spread, axes = np.linalg.svd((features - mean) / scale, full_matrices=False)
    if spread[0] == 0:
        raise UsageError(
            "all scans have the same features", "task.probe.whiten", "look at the weights, or set it to null"
        )
    kept = min(components, int((spread > LEAST_SPREAD * spread[0]).sum()))
    return Whitening(mean, scale, axes[:kept].T / spread[:kept] * np.sqrt(len(features)))
