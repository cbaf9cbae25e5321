"""How long a step of pretraining takes, against the published arithmetic in the same run.

Only the step is timed – forward, backward, clipping, optimizer, teacher –, as Lightning's loop runs the tasks of
`fmct fit`; `fmct bench views` times what comes before. Arithmetic that is left out and arithmetic that is done faster
are told apart: every way says how many FLOPs it takes, and one does the published arithmetic in full.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fmct.benchmarks.fresh_process import in_fresh_process, peak_memory
from fmct.benchmarks.published_steps import CROPS, published_dino_step, published_mae_step
from fmct.benchmarks.timing import Timing
from fmct.benchmarks.training_ways import Objective, Size, Way, ways
from fmct.callbacks.step_flops import StepFlops
from fmct.data.sharding import Draw
from fmct.experiment.optim import OptimizerConfig
from fmct.experiment.preparing import quiet_lightning
from fmct.experiment.trainer import TrainerConfig
from fmct.tasks.base import Setting, Task
from fmct.views.network_input import InputConfig

STEPS = 2
"""In the first, memory is asked for and the optimizer's state made; the second one counts."""


@dataclass(frozen=True)
class Outcome:
    """What was measured of one objective.

    Attributes:
        title: objective, network, scans of a step.
        timings: one per way, the published arithmetic first.
        tflop: of one scan's step, by way.
        peak_mb: most memory, by way.
    """

    title: str
    timings: list[Timing]
    tflop: dict[str, float]
    peak_mb: dict[str, float]

    def notes(self) -> list[str]:
        """Return arithmetic and memory of each way, a line each."""
        first = next(iter(self.tflop))
        return [
            f"{name}: {self.tflop[name]:.3g} TFLOP a scan ({self.tflop[name] / self.tflop[first]:.2f}x), "
            f"{1e-3 * self.peak_mb[name]:.2f} GB ({self.peak_mb[name] / self.peak_mb[first]:.2f}x)"
            for name in self.tflop
        ]


def measure_training(objective: Objective, turns: int, size: Size | None = None) -> Outcome:
    """Time a step each way, in turns; memory and FLOPs are taken in processes of their own.

    Args:
        objective: dino or mae.
        turns: how often each way is timed; every time after a step that isn't.
        size: of network and views.
    """
    size = size or Size()
    every = ways(objective, size)
    scans = size.scans(objective)
    seconds: dict[str, list[float]] = {way.name: [] for way in every}
    for turn in range(turns):
        for way in every:
            print(f"{objective}, turn {turn + 1} of {turns}: {way.name}", file=sys.stderr, flush=True)
            seconds[way.name].append(seconds_of_step(way, size))
            gc.collect()  # a trainer and its task hold each other, and gigabytes
    costs = {way.name: in_fresh_process(partial(cost_of_step, way, size)) for way in every}
    return Outcome(
        f"{objective}, ViT {size.backbone.width} x {size.backbone.depth}, patch {size.backbone.patch_voxels}, "
        f"a step of {scans} scans, {device().type}, {torch.get_num_threads()} threads",
        [Timing(name, tuple(taken), scans) for name, taken in seconds.items()],
        {name: flop / scans / 1e12 for name, (flop, _) in costs.items()},
        {name: megabytes for name, (_, megabytes) in costs.items()},
    )


def device() -> torch.device:
    """Return where steps are taken: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cost_of_step(way: Way, size: Size) -> tuple[float, float]:
    """Take a step; return its FLOPs (matrix products, forward and backward), and the most memory held in MB."""
    clock = Clock(StepFlops())
    take_steps(way, size, clock)
    on_gpu = device().type == "cuda"
    return float(clock.flops), (torch.cuda.max_memory_allocated() if on_gpu else peak_memory()) / 2**20


def seconds_of_step(way: Way, size: Size) -> float:
    """Take two steps from random weights; return how long the second took."""
    clock = Clock()
    take_steps(way, size, clock)
    return clock.seconds


def take_steps(way: Way, size: Size, clock: Clock) -> None:
    """Take as many steps as a clock measures, from random weights."""
    if way.task is None:
        take_published_steps(way, size, clock)
        return
    input_config = InputConfig(voxels=size.voxels)
    optimizer = OptimizerConfig(lr=1e-4, weight_decay_end=0.4)
    record = {"trainer": TrainerConfig(max_epochs=1).model_dump(mode="json")}
    setting = Setting(input_config, optimizer, 0, record)
    task: Task = way.task.build(size.backbone.build(input_config.channels, size.voxels), setting)
    quiet_lightning()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(way.matmul_precision)
    trainer = L.Trainer(
        accelerator="auto",
        devices=1,
        precision=way.precision,
        max_epochs=1,
        gradient_clip_val=3.0 if way.objective == "dino" else None,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    try:
        trainer.fit(task, datamodule=Heads(size.scans(way.objective), size.voxels * 3 // 2))
    finally:
        torch.set_float32_matmul_precision(before)


def take_published_steps(way: Way, size: Size, clock: Clock) -> None:
    """Do the published arithmetic."""
    channels, rows = InputConfig().channels, size.scans(way.objective)
    step: Callable[[Tensor], None]
    if way.objective == "dino":
        step = published_dino_step(size.backbone, size.head, channels, size.voxels, device())
        rows *= CROPS
    else:
        step = published_mae_step(size.backbone, channels, size.voxels, device())
    views = torch.rand(rows, channels, *[size.voxels] * 3).to(device())
    for _ in range(STEPS):
        clock.start()
        step(views)
        clock.stop()


class Clock(L.Callback):
    """Times the last of the steps, or counts its FLOPs.

    Args:
        counter: what counts; None: time is taken.
    """

    def __init__(self, counter: StepFlops | None = None) -> None:
        self.counter = counter
        self.steps = 0
        self.seconds = 0.0
        self.flops = 0

    def start(self) -> None:
        """Begin a step."""
        self.steps += 1
        if self.counter is not None and self.steps == STEPS:
            self.counter.begin()
        synchronize()
        self.began = time.perf_counter()

    def stop(self) -> None:
        """End a step."""
        synchronize()
        self.seconds = time.perf_counter() - self.began
        if self.counter is not None and self.steps == STEPS:
            self.flops = self.counter.end()

    def on_train_batch_start(self, *args: Any) -> None:
        """Begin with the step: views are made by now."""
        self.start()

    def on_train_batch_end(self, *args: Any) -> None:
        """End with the step."""
        self.stop()


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Heads(L.LightningDataModule):
    """Batches of volumes, for steps whose time doesn't depend on what is in them: a ball of soft tissue in air."""

    def __init__(self, scans: int, side: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(batch_size=scans)
        axis = torch.linspace(-1, 1, side)
        radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
        ball = torch.where(radius < 0.7, 40, -1024).to(torch.int16)
        self.hu = ball.expand(scans, 1, side, side, side).contiguous()

    def training_batches(self, world_size: int) -> int:
        """Return how many batches an epoch has."""
        return STEPS

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return as many batches as steps, as the loader of `fmct fit` gives them."""
        scans = len(self.hu)
        batches: Any = [
            {
                "hu": self.hu,
                "index": torch.arange(scans),
                "scan_id": [f"ball {row}" for row in range(scans)],
                "draws": [Draw(row, 0, batch) for row in range(scans)],
            }
            for batch in range(STEPS)
        ]
        return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)
