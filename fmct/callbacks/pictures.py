"""Pictures of what a run sees and makes, in TensorBoard and as PNG files in the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fmct.callbacks.evaluation_mode import evaluating
from fmct.console.files import atomic_path
from fmct.experiment.event_file import EventFile


class Pictures(L.Callback):
    """Asks the task for pictures at the first step, every n steps and at the end.

    A task that has any defines `pictures(batch) -> dict[name, (H, W) tensor in [0, 1]]`.
    """

    def __init__(self, folder: Path, every_steps: int) -> None:
        self.folder = folder
        self.every_steps = every_steps
        self.last_step = -1
        self.batch: Any = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw at the first step and every n steps."""
        self.batch = batch
        if trainer.global_step == 1 or trainer.global_step % self.every_steps == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw what the finished model makes."""
        if self.batch is not None:
            self._draw(trainer, pl_module)
        self.batch = None

    def _draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        draw = getattr(pl_module, "pictures", None)
        if draw is None or trainer.global_step == self.last_step:
            return
        self.last_step = trainer.global_step
        with evaluating(pl_module), torch.no_grad():
            pictures: dict[str, Tensor] = draw(self.batch)
        if not trainer.is_global_zero:  # but every process draws: where parameters are divided, it takes all of them
            return
        for name, picture in pictures.items():
            picture = torch.nan_to_num(picture.cpu().float()).clamp(0, 1)
            for logger in trainer.loggers:
                if isinstance(logger, EventFile):
                    logger.log_picture(name, picture, trainer.global_step - 1)  # as scalars, which count from 0
            with atomic_path(self.folder / f"{name}_step{trainer.global_step:06d}.png") as temporary:
                Image.fromarray((picture.numpy() * 255).round().astype(np.uint8)).save(temporary)
