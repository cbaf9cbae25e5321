"""Which scans look alike to a model: the nearest neighbors of one embedding among many, by cosine similarity."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from fmct.evaluation.knn import unit_rows

Floats = NDArray[np.floating]


def nearest_scans(
    query_D: Floats, scan_ids: Sequence[str], bank_ND: Floats, k: int, without: Collection[str] = ()
) -> list[tuple[str, float]]:
    """Return the scans most like one, the most alike first, those equally alike in the order of the bank.

    Args:
        query_D: features of the one.
        scan_ids: N names.
        bank_ND: their features.
        k: how many at most.
        without: names that don't come into question.

    Returns:
        (scan_id, cosine similarity from -1 to 1) pairs.
    """
    similarities = unit_rows(bank_ND) @ unit_rows(query_D[None])[0]
    order = np.argsort(-similarities, kind="stable")
    ranked = [(scan_ids[row], float(similarities[row])) for row in order if scan_ids[row] not in without]
    return ranked[:k]
