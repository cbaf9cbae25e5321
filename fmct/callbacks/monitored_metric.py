"""A metric of the validations by which a run is judged while it goes on."""

from __future__ import annotations

from typing import Any

import lightning as L

from fmct.console.errors import UsageError

BETTER = {"loss": "lower", "auroc": "higher"}


def higher_is_better(metric: str) -> bool:
    """Say which way is better, which the metric's name tells: `val/auroc_ICH` is an AUROC.

    Raises:
        UsageError: when the name is no metric's.
    """
    kind = metric.rpartition("/")[2].partition("_")[0]
    if kind not in BETTER:
        raise UsageError(
            f"{metric} doesn't tell whether more of it is better", "the monitored metric", f"use {' or '.join(BETTER)}"
        )
    return BETTER[kind] == "higher"


def require_logged(metric: str, key: str, trainer: L.Trainer, task: Any) -> None:
    """Check that validations will log a metric.

    Args:
        metric: its name.
        key: the key that names it.
        trainer: of the run.
        task: the run's, a `fmct.tasks.base.Task`.

    Raises:
        UsageError: when there are no validations, or they don't log it.
    """
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if data.val is None:
        raise UsageError(
            f"{metric} is never measured: there are no validation scans",
            data.config.manifest,
            f"name splits in data.val_splits, or leave out {key}",
        )
    logged = task.validation_metrics()
    if metric not in logged:
        raise UsageError(
            f"validation doesn't log {metric}", key, f"choose among {', '.join(logged)}" if logged else "leave it out"
        )
