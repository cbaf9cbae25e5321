"""When a callback has something to do: after a whole step, and when the trainer writes what was logged."""

from __future__ import annotations

import lightning as L


def step_is_complete(trainer: L.Trainer, batch_idx: int) -> bool:
    """Say at the end of a batch whether the optimizer has just stepped, or more batches are accumulated first."""
    accumulated: int = trainer.accumulate_grad_batches
    return (batch_idx + 1) % accumulated == 0 or trainer.is_last_batch


def log_is_due(trainer: L.Trainer, batch_idx: int) -> bool:
    """Say at the end of a batch whether what is logged now is written."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return step_is_complete(trainer, batch_idx) and trainer.global_step % every == 0
