"""Ends a run after so many optimizer steps."""

from __future__ import annotations

from typing import Any

import lightning as L


class StepLimit(L.Callback):
    """Stops training at a number of steps, in the middle of an epoch if need be.

    Lightning's own `max_steps` does so too, but a run resumed from the end of an epoch then passes over the next one.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take no step where a resumed run is at its end already."""
        self._stop_when_done(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take no further step."""
        self._stop_when_done(trainer)

    def _stop_when_done(self, trainer: L.Trainer) -> None:
        if trainer.global_step >= self.steps:
            trainer.should_stop = True
