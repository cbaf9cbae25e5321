"""Progress in plain lines, for logs, CI and SLURM, where a bar is noise."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar


class PlainProgress(ProgressBar):
    """Prints epoch, step, loss and scans per second every few seconds and at the end of the run."""

    def __init__(self, seconds_between_lines: float = 15.0) -> None:
        super().__init__()
        self.seconds_between_lines = seconds_between_lines
        self.enabled = True
        self.last = time.monotonic()

    def disable(self) -> None:
        """Print nothing, on ranks other than the first."""
        self.enabled = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print a line when the last one is old."""
        if self.enabled and time.monotonic() - self.last >= self.seconds_between_lines:
            self._print_line(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the last line."""
        if self.enabled:
            self._print_line(trainer)

    def _print_line(self, trainer: L.Trainer) -> None:
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        shown = ["train/loss", "val/loss", "val/auroc", "train/scans_per_second"]
        parts = [f"{name.removeprefix('train/')} {metrics[name]:.4g}" for name in shown if name in metrics]
        print(f"epoch {trainer.current_epoch} step {trainer.global_step}: {', '.join(parts)}", flush=True)
        self.last = time.monotonic()
