"""How many scans fit into a step here, how long one takes, and how many loader processes keep up with it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import psutil
import torch

from fmct.checkup.finding import Finding, ok
from fmct.checkup.machine import memory_bytes, processors
from fmct.console.disk_space import in_units
from fmct.data.datamodule import ScanDataModule
from fmct.evaluation.wording import count
from fmct.experiment.loading import as_record
from fmct.experiment.schema import Experiment
from fmct.experiment.weights import initial_backbone, setting_of
from fmct.tasks.classifier import ClassifierConfig

STEPS = 2
"""In the first, memory is asked for and the optimizer's state made; the second one counts."""
USED_SHARE = 0.85
"""Of the free memory: what is left is for fragments, validation and pictures."""


@dataclass
class Measured:
    """What was measured of steps of several sizes.

    Attributes:
        seconds: of a step, by batch size.
        bytes: most memory of a step, by batch size.
        too_large: the batch size for which memory was too small, if any.
    """

    seconds: dict[int, float] = field(default_factory=dict)
    bytes: dict[int, float] = field(default_factory=dict)
    too_large: int | None = None

    def largest(self, free_bytes: float, scans: int) -> int:
        """Say how many scans fit: the largest power of two, from a straight line through two sizes.

        Args:
            free_bytes: memory that a step may take. At least one size was measured.
            scans: training scans: a batch can't be larger.
        """
        sizes = sorted(self.bytes)
        small, large = sizes[0], sizes[-1]
        if small == large:  # all of it is taken for the scans': fewer may be said to fit than do
            per_scan, fixed = self.bytes[small] / small, 0.0
        else:
            per_scan = (self.bytes[large] - self.bytes[small]) / (large - small)
            fixed = self.bytes[large] - per_scan * large
        fitting = (USED_SHARE * free_bytes - fixed) / per_scan if per_scan > 0 else math.inf
        fitting = min(fitting, scans, *([self.too_large - 1] if self.too_large else []))
        return max(sizes[0], 1 << int(math.log2(max(1, fitting))))

    @property
    def seconds_of_scan(self) -> float:
        """How long a scan takes, in the largest step."""
        largest = max(self.seconds)
        return self.seconds[largest] / largest


class Stopwatch(L.Callback):
    """Times the last step, and takes down the most memory."""

    def __init__(self) -> None:
        self.started = self.seconds = self.bytes = 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start."""
        synchronize()
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop."""
        synchronize()
        self.seconds = time.perf_counter() - self.started
        on_gpu = torch.cuda.is_available()
        self.bytes = torch.cuda.max_memory_allocated() if on_gpu else float(psutil.Process().memory_info().rss)


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def probe(experiment: Experiment, data: ScanDataModule, budget_s: float) -> list[Finding]:
    """Take a few steps of an experiment, of growing batches, and read a few scans.

    Args:
        experiment: what shall be run.
        data: its scans.
        budget_s: no larger step begins later than this; two sizes are always tried.

    Returns:
        What to set `data.batch_size` and `data.workers` to.
    """
    if isinstance(experiment.task, ClassifierConfig) and experiment.task.is_probe:
        return [ok("batch", "a probe is fitted without steps: any data.batch_size does")]
    free = float(torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else memory_bytes())
    before = 0.0 if torch.cuda.is_available() else float(psutil.Process().memory_info().rss)
    reading = seconds_to_read(data, budget_s / 5)
    measured, deadline = Measured(), time.monotonic() + budget_s * 4 / 5
    size = data.least
    while size <= len(data.train) and (len(measured.seconds) < 2 or time.monotonic() < deadline):
        try:
            seconds, most = step(experiment, data, size)
        except (torch.OutOfMemoryError, MemoryError):
            measured.too_large = size
            break
        measured.seconds[size], measured.bytes[size] = seconds, max(0.0, most - before)
        size *= 2
    return said(measured, reading, free, experiment, len(data.train))


def said(measured: Measured, reading_s: float, free_bytes: float, experiment: Experiment, scans: int) -> list[Finding]:
    """Say what the measurements mean for an experiment's batch size and workers."""
    wanted, workers = experiment.data.batch_size, experiment.data.workers
    if not measured.seconds:
        return [Finding("batch", "problem", "not even the smallest batch fits into memory", "make the network smaller")]
    fits = measured.largest(free_bytes, scans)
    tried = ", ".join(f"{size}: {seconds:.2g} s" for size, seconds in measured.seconds.items())
    about = (
        f"steps of {tried}; about {count(fits, 'scan')} {'fits' if fits == 1 else 'fit'} ({in_units(free_bytes)} free)"
    )
    if wanted > fits and fits < scans:
        fix = f"data.batch_size {fits}, trainer.accumulate_batches {math.ceil(wanted / fits)}"
        batch = Finding("batch", "warning", f"{about}; data.batch_size is {wanted}", fix)
    else:
        batch = ok("batch", f"{about}; data.batch_size {wanted} does")
    needed = 0 if reading_s < 0.05 * measured.seconds_of_scan else math.ceil(reading_s / measured.seconds_of_scan) + 1
    usable = min(needed, max(1, processors() - 1)) if needed else 0
    speed = f"reading a scan takes {1e3 * reading_s:.0f} ms, its step {1e3 * measured.seconds_of_scan:.0f} ms"
    if workers < usable:
        return [batch, Finding("workers", "warning", f"{speed}; data.workers is {workers}", f"data.workers {usable}")]
    return [batch, ok("workers", f"{speed}; data.workers {workers} does ({usable} would)")]


def seconds_to_read(data: ScanDataModule, budget_s: float) -> float:
    """Read scans, one by one, for a while; return the mean time of one."""
    started, read = time.perf_counter(), 0
    while read < len(data.train) and (read == 0 or time.perf_counter() - started < budget_s):
        data.train[read]
        read += 1
    return (time.perf_counter() - started) / read


def step(experiment: Experiment, data: ScanDataModule, batch_size: int) -> tuple[float, float]:
    """Take steps of some size on one device; return the seconds of the last, and the most memory in bytes."""
    from fmct.experiment.preparing import quiet_lightning

    quiet_lightning()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    settings = experiment.data.model_copy(update={"batch_size": batch_size, "workers": 0})
    task = experiment.task.build(
        initial_backbone(experiment, data), setting_of(experiment, as_record(experiment), data)
    )
    watch = Stopwatch()
    trainer = L.Trainer(
        accelerator=experiment.trainer.accelerator,
        devices=1,
        precision=experiment.trainer.precision,
        max_epochs=STEPS,  # of one batch at least
        max_steps=STEPS,
        gradient_clip_val=experiment.trainer.clip_norm,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
    )
    trainer.fit(task, datamodule=settings.build(experiment.labels, experiment.seed))
    return watch.seconds, watch.bytes
