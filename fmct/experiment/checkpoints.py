"""When a run is saved, and which of its checkpoints it goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from fmct.experiment.event_file import EventFile
from fmct.experiment.metrics_table import MetricsTable

LAST_NAME = "last.ckpt"


class Checkpoints(Checkpoint):
    """Saves at the end of epochs, and within them where asked to; keeps the newest.

    `last.ckpt` is a link to the checkpoint that the run goes on from. It moves on only when the checkpoint is whole and
    the metrics up to its step are on disk, so that a run killed at any moment goes on without a hole in its metrics.

    Args:
        folder: where checkpoints go.
        every_epochs: epochs between checkpoints.
        every_steps: optimizer steps between checkpoints within an epoch; 0: none.
    """

    def __init__(self, folder: Path, every_epochs: int, every_steps: int = 0) -> None:
        self.folder = folder
        self.every_epochs = every_epochs
        self.every_steps = every_steps
        self.saved_step = 0
        self.pending: Path | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember where the run goes on from: nothing is to be saved there."""
        self.saved_step = trainer.global_step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Publish the checkpoint of the step before, whose metrics are logged by now."""
        self._publish(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch; what is due at its last batch waits for its end."""
        if self._steps_due(trainer) and not trainer.is_last_batch:
            self._save(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Publish before validation, which may take long."""
        self._publish(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save at the end of an epoch."""
        if (trainer.current_epoch + 1) % self.every_epochs == 0 or self._steps_due(trainer):
            self._save(trainer)
            self._publish(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the end of the run, if that isn't done."""
        self._save(trainer)
        self._publish(trainer)

    def _steps_due(self, trainer: L.Trainer) -> bool:
        """Whether a checkpoint is due that isn't there; with accumulation, only a step's last batch makes one due."""
        step = trainer.global_step
        return self.every_steps > 0 and step % self.every_steps == 0 and step != self.saved_step

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.global_step == self.saved_step:
            return
        self.saved_step = trainer.global_step
        self.pending = self.folder / f"step{self.saved_step:07d}.ckpt"
        trainer.save_checkpoint(self.pending)

    def _publish(self, trainer: L.Trainer) -> None:
        if self.pending is None:
            return
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, MetricsTable | EventFile):
                    logger.write()
            link = self.folder / f".{LAST_NAME}"
            link.unlink(missing_ok=True)
            link.symlink_to(self.pending.name)
            link.replace(self.folder / LAST_NAME)
            for old in self.folder.glob("step*.ckpt"):
                if old != self.pending:
                    trainer.strategy.remove_checkpoint(old)
        self.pending = None
