"""Stops a run whose loss isn't a number, naming the scans; Lightning alone would train on."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch

from fmct.console.errors import FmctError


class NanGuard(L.Callback):
    """Checks the loss of every batch on the CPU; on a GPU only at log steps, where the value is fetched anyway."""

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: torch.Tensor) -> None:
        """Refuse to take a step along a loss that is NaN or infinite.

        Raises:
            FmctError: naming the step.
        """
        log_every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if loss.device.type != "cpu" and trainer.global_step % log_every:
            return
        if not bool(torch.isfinite(loss)):
            raise FmctError(
                f"the loss is {loss.item()} at step {trainer.global_step}",
                f"the batch of {self._scans}",
                "lower optimizer.lr, lengthen the warm-up or set trainer.clip_norm; the last checkpoint is whole",
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember whose batch it is."""
        self._scans = ", ".join(batch["scan_id"][:4]) + (" ..." if len(batch["scan_id"]) > 4 else "")
