"""How many scans per second the training loop gets through, over all devices."""

from __future__ import annotations

import time
from typing import Any

import lightning as L


class Throughput(L.Callback):
    """Logs `train/scans_per_second` over the steps since the last log line; the first steps warm up and don't count."""

    def __init__(self, warmup_batches: int = 2) -> None:
        self.warmup_batches = warmup_batches
        self.seen = 0
        self.total_scans = 0
        self.scans = 0
        self.since: float | None = None
        self.total_seconds = 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch; log when the trainer logs."""
        self.seen += 1
        now = time.perf_counter()
        if self.since is None or self.seen <= self.warmup_batches:
            self.since, self.scans = now, 0
            return
        self.scans += len(batch["scan_id"]) * trainer.world_size
        log_every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if trainer.global_step % log_every == 0:
            self._close_interval(now)
            pl_module.log("train/scans_per_second", self.scans_per_second, rank_zero_only=True)

    def _close_interval(self, now: float) -> None:
        if self.since is not None and self.scans:
            self.total_seconds += now - self.since
            self.total_scans += self.scans
        self.since, self.scans = now, 0

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep validation out of the training rate."""
        self._close_interval(time.perf_counter())

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start a new interval after validation."""
        self.since, self.scans = time.perf_counter(), 0

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count what came after the last log line."""
        self._close_interval(time.perf_counter())

    @property
    def scans_per_second(self) -> float:
        """Scans per second over the run so far, 0 before anything was measured."""
        return self.total_scans / self.total_seconds if self.total_seconds else 0.0
