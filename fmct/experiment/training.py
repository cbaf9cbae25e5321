"""Training from a run's start to its end, or to where it was asked or has to end: all processes, with one reason."""

from __future__ import annotations

from pathlib import Path

import lightning as L

from fmct.callbacks.children import end_children
from fmct.callbacks.companions import explained, is_child
from fmct.callbacks.preemption import Stopped
from fmct.console.errors import ExitCode, FmctError
from fmct.data.datamodule import ScanDataModule
from fmct.data.worker_watch import lost
from fmct.tasks.base import Task


def train(trainer: L.Trainer, task: Task, data: ScanDataModule, checkpoint: Path | None) -> None:
    """Train to the end.

    Args:
        trainer: of the experiment.
        task: what learns.
        data: what from.
        checkpoint: where the run goes on from; None: from the start.

    Raises:
        Stopped: when the run was asked to end.
        FmctError: when a loader process died (naming the scan it was at), or another process of the run did.
    """
    try:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    except Stopped as stop:
        stop.exit_code = ExitCode.DONE if is_child(trainer) else ExitCode.PREEMPTED
        end_children(trainer)
        raise
    except BaseException as error:
        timeout_s = task.setting.record["trainer"]["timeout_s"]
        told = None
        if isinstance(error, RuntimeError):
            told = of_loaders(error, data) or explained(error, trainer, timeout_s)
        end_children(trainer)
        if told is None:
            raise
        raise told from error
    finally:
        data.end_loaders()


def of_loaders(error: RuntimeError, data: ScanDataModule) -> FmctError | None:
    """Return what an error that torch raised for a lost loader process means; None: it is another one."""
    for loader in data.loaders:
        told = lost(error, loader.reading, loader.dataset)
        if told is not None:
            return told
    return None
