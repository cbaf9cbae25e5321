"""How training went: loss curves and throughput from metrics.csv."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from fmct.evaluation.figures import MUTED, Look, figure, png, single_axes
from fmct.evaluation.run_folder import Run

SMOOTHED_FROM_ROWS = 100


def series_of(table: pd.DataFrame | None, *columns: str) -> pd.Series[float] | None:
    """Return the first of the columns that has values, indexed by step, where it is a finite number."""
    for column in columns:
        if table is not None and column in table:
            values: pd.Series[float] = pd.to_numeric(table.set_index("step")[column], errors="coerce")
            values = values[np.isfinite(values)]
            if len(values):
                return values
    return None


def training_loss(run: Run) -> pd.Series[float] | None:
    """Return the training loss by step."""
    return series_of(run.training, "train/loss", "train/loss_step", "train/loss_epoch")


def validation_loss(run: Run) -> pd.Series[float] | None:
    """Return the validation loss by step."""
    return series_of(run.training, "val/loss", "val/loss_epoch")


def training_summary(run: Run) -> dict[str, Any]:
    """Return what is known of a run's training: steps, seconds, scans per second, device, first and last losses."""
    train, validation = training_loss(run), validation_loss(run)
    throughput = series_of(run.training, "train/scans_per_second")
    steps = run.environment.get("steps")
    if steps is None and run.training is not None:
        steps = int(run.training["step"].max())
    rate = run.environment.get("scans_per_second")
    if rate is None and throughput is not None:
        rate = float(throughput.median())
    return {
        "steps": steps,
        "seconds": run.environment.get("seconds"),
        "scans_per_second": rate,
        "device": run.environment.get("device"),
        "finished": run.environment.get("finished"),
        "train_loss_first": None if train is None else float(train.iloc[0]),
        "train_loss_last": None if train is None else float(train.iloc[-1]),
        "val_loss_last": None if validation is None else float(validation.iloc[-1]),
    }


def loss_figure(run: Run, look: Look) -> bytes | None:
    """Draw the losses of one run; None where none was logged.

    A long training curve is drawn as it is, pale, under its running median.
    """
    train, validation = training_loss(run), validation_loss(run)
    if train is None and validation is None:
        return None
    with figure(4.4, 3.0) as drawing:
        axes = single_axes(drawing)
        if train is not None:
            window = len(train) // 50 * 2 + 1 if len(train) >= SMOOTHED_FROM_ROWS else 1
            if window > 1:
                axes.plot(train.index, train, color=look.color, alpha=0.25, linewidth=0.8)
            median = train.rolling(window, center=True, min_periods=1).median()
            axes.plot(median.index, median, color=look.color, label="training")
        if validation is not None:
            axes.plot(
                validation.index, validation, color=MUTED, marker="o", markersize=3.5, linewidth=1.2, label="validation"
            )
        axes.set(title=look.label, xlabel="optimizer step", ylabel="loss")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.legend(frameon=False, fontsize=9)
        return png(drawing)
