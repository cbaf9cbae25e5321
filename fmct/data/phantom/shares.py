"""How many of a cohort's scans each hospital has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def scans_of_sites(scans: int, shares: Sequence[float]) -> list[int]:
    """Divide scans in proportion, the largest remainders rounded up; of equal ones the first.

    Args:
        scans: of the cohort.
        shares: of each site, positive, in any unit.

    Returns:
        A number for each site; they add up to `scans`.
    """
    exact = scans * np.asarray(shares, dtype=np.float64) / np.sum(shares)
    sizes = np.floor(exact + 1e-9).astype(int)
    up = np.argsort(-np.round(exact - sizes, 9), kind="stable")[: scans - int(sizes.sum())]
    sizes[up] += 1
    return [int(size) for size in sizes]
