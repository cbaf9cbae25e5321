"""The section `callbacks` of an experiment: what watches a run."""

from __future__ import annotations

from typing import Literal

from lightning.pytorch.callbacks import Callback
from pydantic import Field

from fmct.callbacks.collapse import CollapseAlarm
from fmct.callbacks.early_stopping import EarlyStoppingConfig
from fmct.callbacks.nan_guard import NanGuard
from fmct.callbacks.online_knn import OnlineKNNConfig
from fmct.data.datamodule import ScanDataModule
from fmct.experiment.config import Config


class CallbacksConfig(Config):
    """What a run is watched for."""

    collapse: Literal["warn", "stop", "off"] = Field(
        "warn",
        description="when pretraining collapses: say so, or end the run with an error after a checkpoint",
    )
    max_bad_steps: int = Field(
        10,
        ge=0,
        description="steps that may be skipped because loss or gradient is no number; one more stops the run, as do "
        "three in a row",
    )
    online_knn: OnlineKNNConfig | None = Field(
        None, description="nearest neighbors on a small labeled set every few epochs; null: none"
    )

    early_stopping: EarlyStoppingConfig | None = Field(
        None, description="end the run when validations no longer get better; null: after trainer.max_epochs"
    )

    def build(self, data: ScanDataModule, warmup_fraction: float) -> list[Callback]:
        """Build the callbacks, in the order in which they are to look at a step.

        Args:
            data: of the run.
            warmup_fraction: share of its steps in which the learning rate warms up, and nothing counts as a collapse.

        Raises:
            UsageError: when the labeled scans of online_knn don't fit, or the metric of early_stopping is none.
        """
        watching: list[Callback] = [
            NanGuard(self.max_bad_steps),
            CollapseAlarm(self.collapse, warmup_fraction),
        ]
        if self.online_knn:
            watching.append(self.online_knn.build(data))
        if self.early_stopping:
            watching.append(self.early_stopping.build())
        return watching
