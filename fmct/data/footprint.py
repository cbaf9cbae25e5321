"""Averages of a linear interpolant over voxels, along one axis: the weights that every resampling here is made of.

Samples at increasing knots, not necessarily even, define a function: linear between them, constant for half a gap
beyond the first and the last (a sample has an extent), nothing further out. A voxel's value is the mean of that
function over the voxel's extent. So means are preserved, going coarser averages (no aliasing), going finer interpolates
linearly, and all is one rule: integrate the hat functions exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def footprint_weights(knots_mm: Floats, centers_mm: Floats, width_mm: float) -> NDArray[np.float32]:
    """Return the matrix from samples to voxel means.

    Args:
        knots_mm: (K,) positions of the samples, increasing or decreasing, K >= 2.
        centers_mm: (N,) centers of the voxels.
        width_mm: extent of a voxel.

    Returns:
        (N, K) float32. A row sums to the share of the voxel in which the function is defined: 1 inside, 0 outside.
    """
    if knots_mm[0] > knots_mm[-1]:
        return footprint_weights(knots_mm[::-1], centers_mm, width_mm)[:, ::-1]
    low, high = centers_mm[:, None] - width_mm / 2, centers_mm[:, None] + width_mm / 2
    gaps = np.diff(knots_mm)
    overlap, middle = overlap_and_middle(low, high, knots_mm[:-1], knots_mm[1:])
    to_upper = overlap * (middle - knots_mm[:-1]) / gaps  # exact: the midpoint rule integrates linear functions
    weights = np.zeros((len(centers_mm), len(knots_mm)))
    weights[:, :-1] += overlap - to_upper
    weights[:, 1:] += to_upper
    weights[:, 0] += overlap_and_middle(low, high, knots_mm[:1] - gaps[0] / 2, knots_mm[:1])[0][:, 0]
    weights[:, -1] += overlap_and_middle(low, high, knots_mm[-1:], knots_mm[-1:] + gaps[-1] / 2)[0][:, 0]
    return (weights / width_mm).astype(np.float32)


def overlap_and_middle(low: Floats, high: Floats, start: Floats, end: Floats) -> tuple[Floats, Floats]:
    """Return length and middle of the overlap of voxels [low, high] (N, 1) and intervals [start, end] (M,): (N, M)."""
    left, right = np.maximum(low, start), np.minimum(high, end)
    return np.maximum(right - left, 0.0), (left + right) / 2


def bracket(coordinates: Floats, knots: Floats) -> tuple[NDArray[np.intp], Floats, NDArray[np.bool_]]:
    """Find the two samples around each point, for sampling the same function point by point.

    Args:
        coordinates: (...) where to sample.
        knots: (K,) increasing, K >= 2.

    Returns:
        Index of the lower sample, weight of the upper one (0 to 1, constant beyond the ends), and whether the function
        is defined there, all of the coordinates' shape.
    """
    lower = np.clip(np.searchsorted(knots, coordinates, side="right") - 1, 0, len(knots) - 2)
    weight = np.clip((coordinates - knots[lower]) / np.diff(knots)[lower], 0.0, 1.0)
    half_first, half_last = (knots[1] - knots[0]) / 2, (knots[-1] - knots[-2]) / 2
    return lower, weight, (coordinates >= knots[0] - half_first) & (coordinates <= knots[-1] + half_last)


def bracket_even(coordinates: Floats, count: int) -> tuple[NDArray[np.intp], Floats, NDArray[np.bool_]]:
    """Do as `bracket` for knots 0, 1, ... count - 1, without searching."""
    lower = np.clip(np.floor(coordinates), 0, count - 2).astype(np.intp)
    weight = np.clip(coordinates - lower, 0.0, 1.0)
    return lower, weight, (coordinates >= -0.5) & (coordinates <= count - 0.5)
