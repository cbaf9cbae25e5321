"""How long the training loop waits for its next batch."""

from __future__ import annotations

import time

from lightning.pytorch.profilers import Profiler

NEXT_BATCH = "train_dataloader_next"


class DataWait(Profiler):
    """Adds up the seconds between asking the loader for a batch and getting it; of what else happens it takes no note.

    Attributes:
        seconds: waited since the start of the process.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.asked = 0.0

    def start(self, action_name: str) -> None:
        """Note when a batch is asked for."""
        if action_name.endswith(NEXT_BATCH):
            self.asked = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Add the time since."""
        if action_name.endswith(NEXT_BATCH):
            self.seconds += time.perf_counter() - self.asked
