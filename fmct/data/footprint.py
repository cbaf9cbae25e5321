"""Averages of a linear interpolant over voxels, along one axis: the weights that every resampling here is made of.

Samples at increasing knots, not necessarily even, define a function: linear between them, constant for half a gap
beyond the first and the last (a sample has an extent), nothing further out. A voxel's value is the mean of that
function over the voxel's extent. So means are preserved, going coarser averages (no aliasing), going finer interpolates
linearly, and all is one rule: integrate the hat functions exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.float64]


def footprint_bands(knots_mm: Floats, centers_mm: Floats, width_mm: float) -> csr_array:
    """Return the matrix from samples to voxel means, as the few samples that each voxel needs.

    Args:
        knots_mm: (K,) positions of the samples, increasing or decreasing, K >= 2.
        centers_mm: (N,) centers of the voxels.
        width_mm: extent of a voxel.

    Returns:
        (N, K) float32, sparse, as many entries in each row, in the order of increasing positions. A row sums to the
        share of the voxel in which the function is defined: 1 inside, 0 outside.
    """
    if knots_mm[0] > knots_mm[-1]:
        return reversed_columns(footprint_bands(knots_mm[::-1], centers_mm, width_mm))
    last = len(knots_mm) - 1
    first_gap, last_gap = knots_mm[1] - knots_mm[0], knots_mm[-1] - knots_mm[-2]
    edges = np.concatenate([[knots_mm[0] - first_gap / 2], knots_mm, [knots_mm[-1] + last_gap / 2]])
    low, high = centers_mm - width_mm / 2, centers_mm + width_mm / 2
    start = np.clip(np.searchsorted(edges, low, side="right") - 1, 0, last + 1)
    end = np.searchsorted(edges, high, side="left")
    intervals = start[:, None] + np.arange(max(int((end - start).max()), 1))  # between edges i and i + 1
    known = np.minimum(intervals, last + 1)
    left, right = np.maximum(low[:, None], edges[known]), np.minimum(high[:, None], edges[known + 1])
    overlap = np.where(intervals == known, np.maximum(right - left, 0.0), 0.0)
    # exact: the midpoint rule integrates linear functions
    to_upper = overlap * ((left + right) / 2 - edges[known]) / (edges[known + 1] - edges[known])
    weights = np.zeros((len(centers_mm), intervals.shape[1] + 1))
    weights[:, :-1] += overlap - to_upper
    weights[:, 1:] += to_upper
    columns = np.clip(start[:, None] - 1 + np.arange(weights.shape[1]), 0, last)
    rows = np.arange(len(centers_mm) + 1) * weights.shape[1]
    entries = (weights / width_mm).astype(np.float32).ravel()
    return csr_array((entries, columns.ravel(), rows), shape=(len(centers_mm), last + 1))


def reversed_columns(bands: csr_array) -> csr_array:
    """Return the matrix for samples in reverse order; sums are still taken in the order as before."""
    return csr_array((bands.data, bands.shape[1] - 1 - bands.indices, bands.indptr), shape=bands.shape)


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


def even_footprint(coordinates: Floats, width: float, count: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the weights of samples at 0, 1, ... count - 1 in means of their linear interpolant over short intervals.

    The weight of a sample is the hat function around it, integrated over the interval.

    Args:
        coordinates: (...) middles of the intervals.
        width: their length.
        count: how many samples there are.

    Returns:
        Weights (B, ...) and the samples (B, ...) that they belong to; all 0 where an interval's middle lies beyond the
        ends by more than half a sample.
    """
    start = coordinates - width / 2
    first = np.floor(start)
    offset = (start - first).astype(np.float32)
    numbers = np.arange(int(np.ceil(width)) + 2).reshape(-1, *[1] * offset.ndim)
    nearest = numbers.astype(np.float32)
    weights = hat_integral(offset + np.float32(width) - nearest)
    weights[:2] -= hat_integral(offset - nearest[:2])
    weights[2:] += np.float32(0.5)  # to those, all of the hat lies above the interval's start
    weights *= ((coordinates >= -0.5) & (coordinates <= count - 0.5)) * np.float32(1 / width)
    samples = first.astype(np.int32) + numbers.astype(np.int32)
    return weights, np.clip(samples, 0, count - 1, out=samples)


def hat_integral(ends: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the integral of the hat function around 0 from there to each end (in place of the ends)."""
    np.minimum(ends, np.float32(1), out=ends)
    np.maximum(ends, np.float32(-1), out=ends)
    factor = np.abs(ends)
    factor *= np.float32(-0.5)
    factor += np.float32(1)
    ends *= factor
    return ends
