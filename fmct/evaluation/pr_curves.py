"""Precision and recall of an evaluation for TensorBoard, beside the run's other events."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

THRESHOLDS = 127


def write_pr_curves(frame: pd.DataFrame, folder: Path) -> None:
    """Write one curve per label that has positive scans, in place of earlier ones.

    Args:
        frame: predictions as in `fmct.evaluation.predictions.check_predictions`.
        folder: of the events of this evaluation.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for label, rows in frame[frame["target"].notna()].groupby("label", sort=False):
            if rows["target"].any():
                curve = pr_curve(rows["target"].to_numpy(float), rows["probability"].to_numpy(float))
                writer.add_pr_curve_raw(f"precision_recall/{label}", *curve, num_thresholds=THRESHOLDS)


def pr_curve(target: NDArray[np.floating], score: NDArray[np.floating]) -> NDArray[np.float64]:
    """Count at thresholds from 0 to 1, as TensorBoard draws curves.

    Above the highest score nothing is called positive and precision is undefined: there the curve keeps the precision
    of the highest threshold that has one, instead of falling to 0.

    Args:
        target: (N,) 0 or 1, any of them 1.
        score: (N,) in [0, 1].

    Returns:
        (6, THRESHOLDS): true positives, false positives, true negatives, false negatives, precision, recall.
    """
    called_TN = score >= np.linspace(0, 1, THRESHOLDS)[:, None]
    true, false = called_TN @ target, called_TN @ (1 - target)
    last = int(np.flatnonzero(true + false)[-1])
    precision = true / np.maximum(true + false, 1)
    precision[last + 1 :] = precision[last]
    positive, negative = target.sum(), (1 - target).sum()
    return np.stack([true, false, negative - false, positive - true, precision, true / positive])
