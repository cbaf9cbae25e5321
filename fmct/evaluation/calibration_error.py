"""How far probabilities are from the shares of positives, in bins of equal numbers of scans.

N scans, B bins, R replicates. The expected calibration error (ECE) is the mean over scans of |share of positives - mean
probability| of their bins. Noise makes it positive even where calibration is perfect; the debiased ECE lacks what noise
of the size seen in the bootstrap adds on average. Absolute values have no interval that holds at 0, squares do: the
root-mean-square calibration error takes the noise's own square off (Kumar et al. 2019, arXiv 1909.10155),
and twice from replicates, which carry it twice. Simulated with a true error of 0, on 200 / 600 / 2,000 scans: ECE
0.080 / 0.046 / 0.025, debiased 0.025 / 0.014 / 0.007.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from fmct.evaluation.metrics import Floats

MOST_BINS = 10
FEWEST_IN_BIN = 10


def equal_mass_bins(probability: Floats) -> NDArray[np.intp]:
    """Put (N,) probabilities into at most 10 bins of about equal numbers, 10 scans or more in each.

    Equal probabilities stay together.

    Returns:
        (N,) bin of each scan, from 0 by ascending probability.
    """
    n = len(probability)
    below = np.searchsorted(np.sort(probability), probability, side="left")
    bins = min(MOST_BINS, max(1, n // FEWEST_IN_BIN))
    return np.unique(below * bins // n, return_inverse=True)[1]


def calibration_error(gaps: Floats, noise: Floats) -> tuple[float, float]:
    """Return the expected calibration error, and the same without what noise adds to it on average.

    Args:
        gaps: (B,) share of positives minus mean probability, times the share of scans in the bin.
        noise: (B,) their standard deviations.
    """
    likely = np.sqrt(np.maximum(0.0, gaps**2 - noise**2))
    ratio = likely / np.maximum(noise, 1e-300)
    folded = noise * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) + likely * (1 - 2 * norm.cdf(-ratio))
    error = float(np.abs(gaps).sum())
    return error, max(0.0, error - float((folded - likely).sum()))


def mean_square_error(gaps: Floats, noise: Floats, shares: Floats, times: int) -> Floats:
    """Return the mean over scans of (share of positives - mean probability)^2 in their bins, without noise's part.

    Args:
        gaps: (B, R) as above.
        noise: (B,) standard deviations.
        shares: (B,) share of scans in each bin.
        times: how often the gaps carry the noise: once in the sample, twice in replicates drawn from it.
    """
    squares: Floats = ((gaps**2 - times * noise[:, None] ** 2) / shares[:, None]).sum(axis=0)
    return squares


def root(square: float) -> float:
    """Return the root of a mean square that may be below 0 by chance."""
    return float(np.sqrt(max(0.0, square)))
