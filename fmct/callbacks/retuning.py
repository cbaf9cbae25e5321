"""Lets a run that goes on with another configuration take the optimizer's values from it, not from its checkpoint."""

from __future__ import annotations

from typing import Any

import lightning as L


class Retuning(L.Callback):
    """Puts the configured values of the optimizer's groups and schedule over those of the checkpoint.

    The optimizer's state (moments, step) stays, and the schedule goes on at the step that the run came to.
    """

    def __init__(self) -> None:
        self.groups: list[list[dict[str, Any]]] = []
        self.base_lrs: list[list[float]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember what is configured, before the checkpoint is restored."""
        self.groups = [
            [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]
        schedules: list[Any] = [config.scheduler for config in trainer.lr_scheduler_configs]
        self.base_lrs = [list(schedule.base_lrs) for schedule in schedules]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put it back, with the learning rate of the present step."""
        for optimizer, configured in zip(trainer.optimizers, self.groups, strict=True):
            for group, values in zip(optimizer.param_groups, configured, strict=True):
                group.update(values)
        for config, base_lrs in zip(trainer.lr_scheduler_configs, self.base_lrs, strict=True):
            schedule: Any = config.scheduler
            schedule.base_lrs = base_lrs
            rates = [lr * factor(schedule.last_epoch) for lr, factor in zip(base_lrs, schedule.lr_lambdas, strict=True)]
            schedule._last_lr = rates
            for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
