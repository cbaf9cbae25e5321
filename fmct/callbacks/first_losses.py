"""The first losses of a run, exactly, by which it can be told whether it comes out the same elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from fmct.callbacks.preemption import Stopped
from fmct.console.files import write_text_atomically

FIRST_LOSSES = "first_losses.json"
BATCHES = 10


class FirstLosses(L.Callback):
    """Writes the loss of each of the first batches, the mean over all processes, once there are that many.

    Args:
        folder: the run's; where there are losses already, as in a run that goes on, they stay.
        batches: how many.
        stop: end the run then.
    """

    def __init__(self, folder: Path, batches: int = BATCHES, *, stop: bool = False) -> None:
        self.file = folder / FIRST_LOSSES
        self.batches = batches
        self.stop = stop
        self.losses: list[Tensor] = []
        self.done = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look whether this is the beginning of a run."""
        self.done = trainer.global_step > 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the loss, on its device; at the last of them, write all."""
        if self.done:
            return
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self.losses.append(loss.detach().float().reshape(()).clone())
        if len(self.losses) == self.batches:
            self._write(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what there is of a run that is shorter."""
        if not self.done and self.losses:
            self._write(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End the run, where that is asked for.

        Raises:
            Stopped: to do so.
        """
        if self.done and self.stop:
            raise Stopped(f"{len(self.losses)} batches")

    def _write(self, trainer: L.Trainer) -> None:
        self.done = True
        losses = torch.stack(self.losses)
        if trainer.world_size > 1:
            losses = trainer.strategy.reduce(losses, reduce_op="mean")
        if trainer.is_global_zero:
            write_text_atomically(self.file, json.dumps(losses.tolist()) + "\n")


def read_losses(folder: Path) -> list[float]:
    """Read the first losses of a run, none where it has none."""
    file = folder / FIRST_LOSSES
    return [float(loss) for loss in json.loads(file.read_text(encoding="utf-8"))] if file.is_file() else []
