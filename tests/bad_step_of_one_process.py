"""`fmct fit` of masked image modelling, where the last process's loss is no number at the second batch."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor

from fmct.fit import main
from fmct.tasks.mae import MAETask

BAD_STEP = 1
step = MAETask.training_step


def training_step(self: MAETask, batch: Any, number: int) -> Tensor:
    """Spoil the loss."""
    loss = step(self, batch, number)
    bad = self.trainer.global_step == BAD_STEP and self.global_rank == self.trainer.world_size - 1
    return loss * float("nan") if bad else loss


if __name__ == "__main__":
    MAETask.training_step = training_step  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:]))
