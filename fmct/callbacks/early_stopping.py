"""Ends a run whose validations no longer get better."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping
from pydantic import Field

from fmct.callbacks.monitored_metric import higher_is_better, require_logged
from fmct.experiment.config import Config


class EarlyStoppingConfig(Config):
    """When a run has learned what it can. The learning rate follows its schedule over all epochs all the same."""

    metric: str = Field("val/auroc", description="what validations log: val/auroc, val/auroc_LABEL, val/loss")
    patience_validations: int = Field(5, gt=0, description="validations in a row that may be no better than the best")
    min_delta: float = Field(0.0, ge=0, description="what doesn't change the metric by more is no better")

    def build(self) -> EarlyStopping:
        """Build the callback.

        Raises:
            UsageError: when the metric's name doesn't tell which way is better.
        """
        return EarlyStopping(self, "max" if higher_is_better(self.metric) else "min")


class EarlyStopping(LightningEarlyStopping):
    """Lightning's, but a metric that is never logged is found out at the start, and a stopped run stays so.

    Args:
        config: when to stop.
        mode: `max` where more of the metric is better, else `min`.
    """

    def __init__(self, config: EarlyStoppingConfig, mode: str) -> None:
        super().__init__(
            config.metric,
            min_delta=config.min_delta,
            patience=config.patience_validations,
            mode=mode,
            check_on_train_epoch_end=False,
        )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check the metric's name.

        Raises:
            UsageError: when validations won't log it.
        """
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            require_logged(self.monitor, "callbacks.early_stopping", trainer, pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take no step where a resumed run was stopped already."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say why the run ended, if it was this."""
        if self.wait_count >= self.patience and trainer.is_global_zero:
            times = "validation" if self.wait_count == 1 else "validations"
            print(f"ends early: {self.wait_count} {times} without {self.monitor} beyond {float(self.best_score):.4g}")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting, with the patience that is configured now."""
        super().load_state_dict(state_dict | {"patience": self.patience})
