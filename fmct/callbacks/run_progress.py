"""How far a run is and how long it will take: a bar on a terminal, plain lines in logs, CI and SLURM."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column

from fmct.callbacks.logging_steps import step_is_complete
from fmct.evaluation.wording import duration, significant
from fmct.tasks.base import Task

FIRST = {"train/loss": "loss {}", "train/scans_per_second": "{} scans/s"}
BAR = 12
THEN = {"val/loss": "val loss {}", "val/auroc": "val AUROC {}", "knn/auroc": "kNN AUROC {}"}


class RunProgress(ProgressBar, ABC):
    """Knows steps, speed and the time left of the whole run, not of an epoch; says so every few seconds.

    Args:
        seconds_between: how old what was said last must be.
        warmup_steps: steps of this process that don't count for the time left.
    """

    def __init__(self, seconds_between: float, warmup_steps: int = 2) -> None:
        super().__init__()
        self.seconds_between = seconds_between
        self.warmup_steps = warmup_steps
        self.enabled = True
        self.said = 0.0
        self.total_steps = 0
        self.first_step = 0
        self.measured_from: tuple[int, float] | None = None

    def disable(self) -> None:
        """Say nothing, on ranks other than the first."""
        self.enabled = False

    def enable(self) -> None:
        """Speak again."""
        self.enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say where the run starts, or goes on."""
        assert isinstance(pl_module, Task)
        self.total_steps = pl_module.total_steps
        self.first_step = trainer.global_step
        if self.enabled:
            self.begin(trainer)
        self.said = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say how far the run is, when it wasn't said for long."""
        if not step_is_complete(trainer, batch_idx):
            return
        done, now = trainer.global_step - self.first_step, time.monotonic()
        if done == self.warmup_steps:
            self.measured_from = (trainer.global_step, now)
        if self.enabled and (done == 1 or now - self.said >= self.seconds_between):
            self.show(trainer, self.state(trainer))
            self.said = now

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say how it ended."""
        if self.enabled:
            self.show(trainer, self.state(trainer))
            self.end()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self.end()

    def state(self, trainer: L.Trainer) -> str:
        """Return what was logged last, scans per second, and the time left: `loss 0.43, 12.5 scans/s, 34 min left`."""
        logged = trainer.callback_metrics

        def shown(wanted: dict[str, str]) -> list[str]:
            return [text.format(significant(float(logged[name]))) for name, text in wanted.items() if name in logged]

        left = self.seconds_left(trainer.global_step, time.monotonic())
        return ", ".join(shown(FIRST) + ([f"{duration(left)} left"] if left else []) + shown(THEN))

    def seconds_left(self, step: int, now: float) -> float | None:
        """Estimate the rest of the run by the pace of this process so far, validation and all; None at first."""
        if self.measured_from is None or step <= self.measured_from[0]:
            return None
        steps, seconds = step - self.measured_from[0], now - self.measured_from[1]
        return seconds / steps * (self.total_steps - step)

    @abstractmethod
    def begin(self, trainer: L.Trainer) -> None:
        """Announce the run."""

    @abstractmethod
    def show(self, trainer: L.Trainer, state: str) -> None:
        """Show the state of the run."""

    @abstractmethod
    def end(self) -> None:
        """Show nothing more."""


class PlainProgress(RunProgress):
    """Prints a line at the start, after the first step, every 15 seconds, and at the end."""

    def __init__(self, seconds_between: float = 15.0) -> None:
        super().__init__(seconds_between)

    def begin(self, trainer: L.Trainer) -> None:
        """Print where the run starts."""
        print(f"epoch {trainer.current_epoch} step {trainer.global_step} of {self.total_steps:,}: begins", flush=True)

    def show(self, trainer: L.Trainer, state: str) -> None:
        """Print a line."""
        place = f"epoch {trainer.current_epoch} step {trainer.global_step} of {self.total_steps:,}"
        print(f"{place}: {state}", flush=True)

    def end(self) -> None:
        """Leave the lines as they are."""


class BarProgress(RunProgress):
    """Shows a bar over the whole run, refreshed once a second."""

    def __init__(self, seconds_between: float = 1.0, console: Console | None = None) -> None:
        super().__init__(seconds_between)
        self.console = console
        self.bar: Progress | None = None
        self.task = TaskID(0)

    def begin(self, trainer: L.Trainer) -> None:
        """Draw the bar. The last column takes the room that is left, and is cut off where there's too little."""
        steps = len(f"{self.total_steps}/{self.total_steps}")
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=BAR, table_column=Column(min_width=BAR)),
            MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=steps)),
            TextColumn("{task.fields[state]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=self.console,
            refresh_per_second=2,
            expand=True,
        )
        place, step = f"epoch {trainer.current_epoch}", trainer.global_step
        self.task = self.bar.add_task(place, total=self.total_steps, completed=step, state="begins")
        self.bar.start()

    def show(self, trainer: L.Trainer, state: str) -> None:
        """Move the bar."""
        if self.bar is not None:
            place, step = f"epoch {trainer.current_epoch}", trainer.global_step
            self.bar.update(self.task, completed=step, description=place, state=state)

    def end(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.stop()
