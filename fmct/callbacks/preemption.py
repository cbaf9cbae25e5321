"""Being asked to end – SLURM's SIGUSR1 before time is over, SIGTERM, Ctrl-C: the step is finished and saved first."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_only

from fmct.callbacks.logging_steps import step_is_complete
from fmct.console.errors import ExitCode
from fmct.experiment.checkpoints import Checkpoints

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(BaseException):
    """Ends training from within; no error, so nobody on the way is to treat it as one.

    Args:
        reason: why, for people.

    Attributes:
        exit_code: of this process.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = ExitCode.PREEMPTED


def told(number: int) -> str:
    """Return what a run says when it hears a signal."""
    again = "; Ctrl-C again ends it at once" if number == signal.SIGINT else ""
    return f"{signal.Signals(number).name}: the run ends after this step{again}\n"


class Asked:
    """Whether this process was asked to end: the signal's number, or 0."""

    def __init__(self) -> None:
        self.signal = 0

    def hear(self, number: int, _: Any) -> None:
        """Take note of a signal; a second Ctrl-C ends the process at once, as if nobody had listened."""
        if self.signal and number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if not self.signal and getattr(rank_zero_only, "rank", 0) == 0:
            os.write(sys.stderr.fileno(), told(number).encode())  # print isn't allowed within a print
        self.signal = number

    def listen(self) -> None:
        """Hear the signals from now on, whoever heard them before."""
        if threading.current_thread() is threading.main_thread():
            for number in ASKING:
                signal.signal(number, self.hear)


@contextmanager
def listening() -> Iterator[Asked]:
    """Hear what asks this process to end; outside of the main thread, leave signals alone."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in ASKING}
    asked.listen()
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Preemption(L.Callback):
    """Ends a run in good order when any of its processes is asked to, all of them after the same step.

    During a validation the end of it is waited for: a checkpoint before it would have to validate again.

    Args:
        asked: what this process heard.
        saving: saves the step; None: nothing is saved, and a run that is started again starts over.
    """

    def __init__(self, asked: Asked, saving: Checkpoints | None) -> None:
        self.asked = asked
        self.saving = saving
        self.stopping = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals back from Lightning, whose handlers save in the middle of steps, or wait for others."""
        self.asked.listen()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when somebody was asked to end, except at an epoch's last batch, which waits for its end."""
        if not step_is_complete(trainer, batch_idx):
            return
        self._agree(trainer)
        if self.stopping and self.saving and not trainer.is_last_batch:
            self.saving.save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save at the end of an epoch."""
        self._agree(trainer)
        if self.stopping and self.saving:
            self.saving.save(trainer)
            self.saving.publish(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin no other epoch.

        Raises:
            Stopped: when the run is to end.
        """
        self._stop(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin no other step; what was logged at the last one is published with it.

        Raises:
            Stopped: when the run is to end.
        """
        self._stop(trainer)

    def _agree(self, trainer: L.Trainer) -> None:
        """Let all processes know whether one of them was asked to end."""
        number = torch.tensor(self.asked.signal, device=trainer.strategy.root_device)
        if trainer.world_size > 1:
            dist.all_reduce(number, dist.ReduceOp.MAX)
        self.stopping = int(number) if trainer.world_size > 1 else self.asked.signal

    def _stop(self, trainer: L.Trainer) -> None:
        if not self.stopping:
            return
        if self.saving:
            self.saving.publish(trainer)
        name = signal.Signals(self.stopping).name
        saved = "nothing is saved (trainer.checkpoints is false)"
        if self.saving:
            saved = f"saved as {self.saving.folder.path_of(self.saving.saved_step)}; the same command goes on"
        trainer.strategy.barrier("stopped")  # the first process has published; nobody ends before
        raise Stopped(f"ended by {name} after step {trainer.global_step}, {saved}")
