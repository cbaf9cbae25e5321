"""Interpolation by cubic splines as matrices: what SciPy's `map_coordinates(order=3, mode="nearest")` does on an axis.

Finding a spline's coefficients from samples is a filter whose response to a single sample is known (Unser 1999, IEEE
Signal Processing Magazine 16(6), equation 12), and four coefficients make a point. Both are linear, and on several axes
the same on each. The border is repeated outwards. Responses fall by three quarters with each sample, and are cut.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fmct.data.fmhct_banded import Banded

POLE = np.sqrt(3.0) - 2.0
REACH = 12
"""Samples beyond this distance are left out: what they all weigh together is 2e-7, a rounding error of float32."""
BORDER = 12
"""Points further outside than this are taken from there, as SciPy does; all is constant there."""
KEPT_MATRICES = 64

Floats = NDArray[np.float64]


@lru_cache(maxsize=KEPT_MATRICES)
def resampling_matrix(samples: int, points: int, step: float, first: float) -> Banded:
    """Return the matrix from samples at 0, 1, ... to the spline at `first`, `first + step`, ...

    Args:
        samples: how many there are.
        points: how many to interpolate.
        step: between points, in samples; negative where the axis is to be turned.
        first: place of the first point.
    """
    lower, weights = point_weights(samples, points, step, first)
    spread = np.zeros((points, 2 * REACH + 4))
    for k in range(4):
        spread[:, k : k + 2 * REACH + 1] += weights[:, k, None] * response()
    return gathered(lower - 1 - REACH, spread / spread.sum(axis=1, keepdims=True), samples)


@lru_cache(maxsize=KEPT_MATRICES)
def filter_matrix(samples: int) -> Banded:
    """Return the matrix from samples to the spline's coefficients, border included: (samples + 24, samples)."""
    places = np.arange(-BORDER, samples + BORDER)
    return gathered(places - REACH, np.tile(response() / response().sum(), (len(places), 1)), samples)


def point_matrix(samples: int, points: int, step: float, first: float) -> Banded:
    """Return the matrix from the spline's coefficients, border included, to points; arguments as above."""
    lower, weights = point_weights(samples, points, step, first)
    return gathered(lower - 1 + BORDER, weights, samples + 2 * BORDER)


def response() -> Floats:
    """Return the coefficients (2 * REACH + 1,) around a single sample of 1 among zeros."""
    around: Floats = -6 * POLE / (1 - POLE**2) * POLE ** np.abs(np.arange(-REACH, REACH + 1))
    return around


def point_weights(samples: int, points: int, step: float, first: float) -> tuple[NDArray[np.intp], Floats]:
    """Return the sample before each point (P,), and the weights (P, 4) of coefficients from the one before it on."""
    places = np.clip(first + step * np.arange(points), -BORDER, samples - 1 + BORDER)
    lower = np.floor(places)
    t = (places - lower)[:, None]
    weights = np.hstack([(1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3]) / 6
    return lower.astype(np.intp), weights


def gathered(first: NDArray[np.intp], weights: Floats, count: int) -> Banded:
    """Return the matrix (P, count) that weighs samples (P, W) from a first one (P,) on; the ends also beyond."""
    rows = np.arange(len(first))[:, None]
    columns = np.clip(first[:, None] + np.arange(weights.shape[1]), 0, count - 1)
    dense = np.zeros((len(first), count))
    np.add.at(dense, (rows, columns), weights)
    return Banded.of(dense)
