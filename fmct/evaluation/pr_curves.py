"""Precision and recall of an evaluation for TensorBoard, beside the run's other events."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
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
                writer.add_pr_curve(
                    f"precision_recall/{label}",
                    rows["target"].to_numpy(int),
                    rows["probability"].to_numpy(float),
                    num_thresholds=THRESHOLDS,
                )
