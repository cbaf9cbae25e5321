"""When a callback has something to log, and where it writes it."""

from __future__ import annotations

from collections.abc import Mapping

import lightning as L
import torch


def step_is_complete(trainer: L.Trainer, batch_idx: int) -> bool:
    """Say at the end of a batch whether the optimizer has just stepped, or more batches are accumulated first."""
    accumulated: int = trainer.accumulate_grad_batches
    return (batch_idx + 1) % accumulated == 0 or trainer.is_last_batch


def log_is_due(trainer: L.Trainer, batch_idx: int) -> bool:
    """Say at the end of a batch whether what is logged of its step is written."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return step_is_complete(trainer, batch_idx) and (trainer.global_step % every == 0 or trainer.should_stop)


def write_scalars(trainer: L.Trainer, values: Mapping[str, float]) -> None:
    """Write scalars of the step that was just made to all loggers, and show them to other callbacks.

    At once, unlike `LightningModule.log`, which also takes a tenth of a millisecond and more for each.
    """
    for logger in trainer.loggers:
        logger.log_metrics(dict(values), trainer.global_step - 1)
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
