"""When a run is saved, and when a checkpoint becomes the one that it goes on from."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from fmct.callbacks.logging_steps import step_is_complete
from fmct.console.disk_space import existing, in_units
from fmct.console.errors import FmctError
from fmct.console.file_errors import FIXES, FULL
from fmct.experiment.checkpoint_folder import CheckpointFolder
from fmct.experiment.event_file import EventFile
from fmct.experiment.metrics_table import MetricsTable

SECONDS_PER_HOUR = 3600.0


class Checkpoints(Checkpoint):
    """Saves at the end of epochs, within them where asked to, and when it is told to; keeps the newest.

    `last.ckpt` is a link to the checkpoint that the run goes on from. It moves on only when the checkpoint is whole and
    the metrics up to its step are on disk, so that a run killed at any moment goes on without a hole in its metrics.

    Args:
        folder: where checkpoints go.
        every_epochs: epochs between checkpoints.
        every_steps: optimizer steps between checkpoints within an epoch; 0: none.
        every_hours: hours after which one is made within an epoch too; None: never.
        keep: how many of the newest are kept.
    """

    def __init__(
        self,
        folder: Path,
        every_epochs: int,
        every_steps: int = 0,
        every_hours: float | None = None,
        keep: int = 1,
    ) -> None:
        self.folder = CheckpointFolder(folder)
        self.every_epochs = every_epochs
        self.every_steps = every_steps
        self.every_hours = every_hours
        self.keep = keep
        self.saved_step = 0
        self.saved_at = time.monotonic()
        self.pending: int | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember where the run goes on from: nothing is to be saved there."""
        self.saved_step = trainer.global_step
        self.saved_at = time.monotonic()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Publish the checkpoint of the step before, whose metrics are logged by now."""
        self.publish(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch; what is due at its last batch waits for its end."""
        if not step_is_complete(trainer, batch_idx) or trainer.is_last_batch:
            return
        if self._steps_due(trainer) or self._hours_due(trainer):
            self.save(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Publish before validation, which may take long."""
        self.publish(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save at the end of an epoch."""
        at_epochs = (trainer.current_epoch + 1) % self.every_epochs == 0
        if at_epochs or self._steps_due(trainer) or self._hours_due(trainer):
            self.save(trainer)
            self.publish(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the end of the run, if that isn't done."""
        self.save(trainer)
        self.publish(trainer)

    def _steps_due(self, trainer: L.Trainer) -> bool:
        """Whether a checkpoint is due that isn't there; with accumulation, only a step's last batch makes one due."""
        step = trainer.global_step
        return self.every_steps > 0 and step % self.every_steps == 0 and step != self.saved_step

    def _hours_due(self, trainer: L.Trainer) -> bool:
        """Whether the last checkpoint is that old; all processes go by the first one's clock."""
        if self.every_hours is None:
            return False
        late = time.monotonic() - self.saved_at > self.every_hours * SECONDS_PER_HOUR
        due: bool = trainer.strategy.reduce_boolean_decision(late and trainer.is_global_zero, all=False)
        return due

    def save(self, trainer: L.Trainer) -> None:
        """Save this step, unless that is done; all processes take part.

        Raises:
            FmctError: when it can't be written; the checkpoints before stay.
        """
        if trainer.global_step == self.saved_step:
            return
        path = self.folder.path_of(trainer.global_step)
        try:
            trainer.save_checkpoint(path)
        except OSError as error:
            raise self._unsaved(path, error) from error
        self.saved_step = self.pending = trainer.global_step
        self.saved_at = time.monotonic()

    def _unsaved(self, path: Path, error: OSError) -> FmctError:
        last = self.folder.last
        again = f"the run goes on from {last.readlink().name}" if last.is_symlink() else "the run starts over"
        if error.errno not in FULL:
            fix = f"{FIXES.get(error.errno or 0, 'look at the folder')}, then run it again: {again}"
            return FmctError(f"a checkpoint can't be written ({error.strerror})", path, fix)
        needed, free = self.folder.bytes_needed(), shutil.disk_usage(existing(self.folder.folder)).free
        room = f"free some space, {in_units(needed)} for a checkpoint" if needed else "free some space"
        fix = f"{room} ({in_units(free)} are free now), then run it again: {again}"
        return FmctError(f"the disk is full ({error.strerror})", path, fix)

    def publish(self, trainer: L.Trainer) -> None:
        """Let the run go on from what was saved last, once what was logged until then is on disk."""
        if self.pending is None:
            return
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, MetricsTable | EventFile):
                    logger.write()
            self.folder.publish(self.pending, self.keep)
        self.pending = None
