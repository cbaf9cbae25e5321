"""TensorBoard's events: every step once, also in a run that was killed and goes on from an earlier step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.tensorboard.summary import hparams

from fmct.experiment.hyperparameters import flat
from fmct.experiment.metrics_table import SECONDS_BETWEEN_WRITES
from fmct.experiment.run_record import EXPERIMENT, read_experiment


class EventFile(TensorBoardLogger):
    """Lightning's logger, but a resumed run replaces the points that its earlier part logged and that come again.

    Each process that goes on with a run writes a file of its own; its first event tells TensorBoard to forget what the
    files before it have of that step and later ones.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="")
        self.folder = folder
        self.begun = False
        self.written = time.monotonic()

    def _begin(self, step: int) -> None:
        if not self.begun:
            start: Any = Event(step=step, session_log=SessionLog(status=SessionLog.START))
            self.experiment.file_writer.add_event(start)
            self.begun = True
            self._note_hyperparameters()

    def _note_hyperparameters(self) -> None:
        """Write the run's configuration into TensorBoard's table of runs, which compares them by their loss."""
        if (self.folder.parent / EXPERIMENT).exists():
            values = flat(read_experiment(self.folder.parent))
            for part in hparams(values, {"train/loss": 0.0}):  # type: ignore[no-untyped-call]
                self.experiment.file_writer.add_summary(part)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars of a step."""
        self._begin(step or 0)
        super().log_metrics(metrics, step)

    @rank_zero_only
    def save(self) -> None:
        """Flush when that is due; Lightning asks for it whenever something is logged, and it waits for the disk."""
        if time.monotonic() - self.written > SECONDS_BETWEEN_WRITES:
            self.write()

    @rank_zero_only
    def write(self) -> None:
        """Flush now."""
        super().save()
        self.written = time.monotonic()

    @rank_zero_only
    def log_picture(self, name: str, picture: Tensor, step: int) -> None:
        """Write a picture, (H, W) in [0, 1], of a step."""
        self._begin(step)
        self.experiment.add_image(name, picture.unsqueeze(0), step)
