"""How fast a run is, and how near to what its devices could do."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch

from fmct.callbacks.data_wait import DataWait
from fmct.callbacks.logging_steps import log_is_due, write_scalars
from fmct.callbacks.peak_flops import peak_flops
from fmct.callbacks.step_flops import StepFlops


class Throughput(L.Callback):
    """Logs speed over the steps since the last log line, without validation and what else comes between epochs.

    `train/scans_per_second` over all devices; `train/data_wait`, the share of the time in which the loop waited for
    its next batch; `train/tflop_per_scan` (10¹² operations, counted in the first step); `train/tflops`, operations per
    second and device; `train/mfu`, their share of the device's peak, where that is known; `train/gpu_memory_gb`, the
    most that was allocated on the first device. The first steps warm up and don't count.
    """

    def __init__(self, warmup_batches: int = 2) -> None:
        self.warmup_batches = warmup_batches
        self.seen = 0
        self.whole_run = Interval()
        self.since_log = Interval()
        self.clock: tuple[float, float] | None = None
        self.flops: StepFlops | None = None
        self.flop_per_scan = 0.0
        self.peak: float | None = None

    @property
    def scans_per_second(self) -> float:
        """Scans per second over the run so far, 0 before anything was measured."""
        return self.whole_run.scans / self.whole_run.seconds if self.whole_run.seconds else 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the clock run."""
        self._go(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the operations of the first batch."""
        if self.seen == 0:
            self.flops = StepFlops()
            self.flops.begin()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch; log when the trainer logs."""
        self.seen += 1
        scans = len(batch["scan_id"])
        if self.flops is not None:
            self.flop_per_scan = self.flops.end() / scans
            self.peak = peak_flops(pl_module.device, multiplied_in(trainer))
            self.flops = None
        self._stop(trainer, scans * trainer.world_size)
        if self.seen <= self.warmup_batches:
            self.whole_run, self.since_log = Interval(), Interval()
        if self.since_log.seconds and log_is_due(trainer, batch_idx):
            self._log(trainer, pl_module)
            self.since_log = Interval()
        self._go(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock for validation."""
        self._stop(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the clock run again."""
        self._go(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock for what comes between epochs."""
        self._stop(trainer)

    def _go(self, trainer: L.Trainer) -> None:
        self.clock = (time.perf_counter(), seconds_waited(trainer))

    def _stop(self, trainer: L.Trainer, scans: int = 0) -> None:
        if self.clock is not None:
            started, waited = self.clock
            seconds, waiting = time.perf_counter() - started, seconds_waited(trainer) - waited
            for interval in (self.whole_run, self.since_log):
                interval.add(scans, seconds, waiting)
        self.clock = None

    def _log(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        rate = self.since_log.scans / self.since_log.seconds
        values = {"scans_per_second": rate, "data_wait": self.since_log.waiting / self.since_log.seconds}
        if self.flop_per_scan:
            flops = self.flop_per_scan * rate / trainer.world_size
            values |= {"tflop_per_scan": self.flop_per_scan / 1e12, "tflops": flops / 1e12}
            values |= {"mfu": flops / self.peak} if self.peak else {}
        if pl_module.device.type == "cuda":
            values["gpu_memory_gb"] = torch.cuda.max_memory_allocated(pl_module.device) / 1e9
        write_scalars(trainer, {f"train/{name}": value for name, value in values.items()})


@dataclass
class Interval:
    """Scans that were trained on, the seconds that took, and how many of them were spent waiting for data."""

    scans: int = 0
    seconds: float = 0.0
    waiting: float = 0.0

    def add(self, scans: int, seconds: float, waiting: float) -> None:
        """Add what came since."""
        self.scans += scans
        self.seconds += seconds
        self.waiting += waiting


def seconds_waited(trainer: L.Trainer) -> float:
    """Return how long the loop has waited for batches so far."""
    profiler: Any = trainer.profiler  # type: ignore[attr-defined]
    return profiler.seconds if isinstance(profiler, DataWait) else 0.0


def multiplied_in(trainer: L.Trainer) -> torch.dtype:
    """Return the type that a run's matrix products have."""
    return torch.bfloat16 if str(trainer.precision).startswith("bf16") else torch.float32
