"""Curves of precision and recall for TensorBoard."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from fmct.evaluation.pr_curves import THRESHOLDS, pr_curve


def test_points_are_scikit_learns_and_precision_stays_where_nothing_is_called() -> None:
    generator = np.random.default_rng(0)
    target = (generator.random(80) < 0.3).astype(float)
    score = np.clip(0.1 * target + 0.5 * generator.random(80), 0, 0.55)  # nothing is called above .55
    curve = pr_curve(target, score)
    assert curve.shape == (6, THRESHOLDS)
    for place in (0, 20, 40, 60):
        called = score >= place / (THRESHOLDS - 1)
        tn, fp, fn, tp = confusion_matrix(target, called, labels=[0, 1]).ravel()
        assert curve[:4, place].tolist() == [tp, fp, tn, fn]
        assert curve[4, place] == precision_score(target, called)
        assert curve[5, place] == recall_score(target, called)
    none = np.flatnonzero(curve[0] + curve[1] == 0)
    assert len(none) > 40
    assert (curve[4, none] == curve[4, none[0] - 1]).all()
    assert curve[4, none[0] - 1] > 0
    assert (curve[5, none] == 0).all()
