"""Findings read off the nearest neighbors in feature space, without training anything.

B scans of the bank, whose labels are known; Q scans asked about; D width; L labels; K neighbors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fmct.evaluation.metrics import auroc

TEMPERATURE = 0.07
SIMILARITIES_AT_ONCE = 2**24

Floats = NDArray[np.floating]


def knn_scores(bank_BD: Floats, labels_B: Floats, query_QD: Floats, k: int, temperature: float = TEMPERATURE) -> Floats:
    """Share of positives among the nearest scans of the bank, weighed by exp(cosine similarity / temperature).

    As Wu et al. 2018 (arXiv 1805.01978, section 3.4) and DINO (Caron et al. 2021, arXiv 2104.14294, section 4.1).

    Args:
        bank_BD: (B, D) features.
        labels_B: (B,) 0 or 1, NaN where unknown: such scans aren't neighbors.
        query_QD: (Q, D) features.
        k: neighbors; all scans of the bank where it has fewer.
        temperature: the smaller, the more the nearest ones count.

    Returns:
        (Q,) float64 in [0, 1].
    """
    known = ~np.isnan(labels_B)
    return weighted_share(*nearest(bank_BD[known], query_QD, k), labels_B[known], temperature)


def nearest(bank_BD: Floats, query_QD: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
    """Find the nearest scans of the bank, the nearest first; memory stays small however many are asked about.

    Args:
        bank_BD: (B, D) features.
        query_QD: (Q, D) features.
        k: neighbors; all scans of the bank where it has fewer.

    Returns:
        Cosine similarities (Q, K) float64, and rows of the bank (Q, K).
    """
    bank, k = unit_rows(bank_BD), min(k, len(bank_BD))
    at_once = max(1, SIMILARITIES_AT_ONCE // len(bank))
    closeness, rows = np.empty((len(query_QD), k)), np.empty((len(query_QD), k), np.int64)
    for start in range(0, len(query_QD), at_once):
        part = slice(start, start + at_once)
        similarity_QB = unit_rows(query_QD[part]) @ bank.T
        found = np.argpartition(-similarity_QB, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(similarity_QB, found, 1), axis=1, kind="stable")
        rows[part] = np.take_along_axis(found, order, 1)
        closeness[part] = np.take_along_axis(similarity_QB, rows[part], 1)
    return closeness, rows


def weighted_share(closeness_QK: Floats, nearest_QK: NDArray[np.int64], labels_B: Floats, temperature: float) -> Floats:
    """Weigh the labels (B,) of the nearest scans, the nearest first, by exp(similarity / temperature): (Q,)."""
    weights_QK = np.exp((closeness_QK - closeness_QK[:, :1]) / temperature)
    scores: Floats = (weights_QK * labels_B.astype(np.float64)[nearest_QK]).sum(1) / weights_QK.sum(1)
    return scores


def unit_rows(features: Floats) -> Floats:
    """Scale the rows of (N, D) features to length 1, in float64; a row of zeros stays."""
    rows = features.astype(np.float64)
    unit: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def knn_aurocs(bank_BD: Floats, bank_BL: Floats, query_QD: Floats, query_QL: Floats, k: int) -> list[float]:
    """AUROC of each label by `knn_scores`, over the scans asked about whose label is known.

    Args:
        bank_BD: (B, D) features.
        bank_BL: (B, L) labels, 0, 1 or NaN.
        query_QD: (Q, D) features.
        query_QL: (Q, L) labels, 0, 1 or NaN.
        k: neighbors.

    Returns:
        L values in [0, 1]; NaN for a label that lacks a class.
    """
    values = []
    for bank_labels, query_labels in zip(bank_BL.T, query_QL.T, strict=True):
        known = ~np.isnan(query_labels)
        scores = knn_scores(bank_BD, bank_labels, query_QD[known], k)
        value = auroc(query_labels[known], scores)
        values.append(float("nan") if value is None else value)
    return values
