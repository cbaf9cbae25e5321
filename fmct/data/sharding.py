"""One order for all processes, and each process's share of it: the sampler, which can begin anywhere in an epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from fmct.data.sampling import Order, repeats


class Draw(NamedTuple):
    """One drawing of a scan, which alone decides its random views.

    Attributes:
        row: of the data set.
        epoch: in which it was drawn.
        repeat: how often the scan was drawn before in the same epoch.
    """

    row: int
    epoch: int = 0
    repeat: int = 0


class Shard(Sampler[Draw]):
    """A process's share of every epoch: draws number rank, rank + world_size, ... of one order.

    So the batches of all processes together are those of one process with a larger batch, and every process has
    equally many. Draws that fill no whole batch on every process are dropped; where there are fewer than one batch for
    each, or `keep_all` is set, none are, and the first ones come again until the processes have equally many.

    Args:
        order: of all processes.
        batch_size: draws per process and batch.
        rank: of this process.
        world_size: number of processes.
        keep_all: drop nothing.
    """

    def __init__(
        self, order: Order, batch_size: int, rank: int = 0, world_size: int = 1, *, keep_all: bool = False
    ) -> None:
        self.order = order
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        whole = order.draws // (world_size * batch_size)
        self.draws = math.ceil(order.draws / world_size) if keep_all or not whole else whole * batch_size
        self.batches = math.ceil(self.draws / batch_size)
        self.smallest_batch = self.draws - (self.batches - 1) * batch_size

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins with the next `iter`."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.draws

    def __iter__(self) -> Draws:
        return Draws(self)

    def of_epoch(self, epoch: int) -> NDArray[np.int64]:
        """Return the rows that this process draws in an epoch, and their repeats: (draws, 2)."""
        drawn = np.resize(self.order.of_epoch(epoch), self.draws * self.world_size)
        return np.stack([drawn, repeats(drawn)], axis=1)[self.rank :: self.world_size]


class Draws(Iterator[Draw]):
    """The draws of an epoch, one after the other; its state, the same on every process, is how far it came."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.load_state_dict({"epoch": shard.epoch, "taken": 0})

    def __next__(self) -> Draw:
        if self.taken == len(self.rows_and_repeats):
            raise StopIteration
        row, repeat = self.rows_and_repeats[self.taken].tolist()
        self.taken += 1
        return Draw(row, self.epoch, repeat)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and how many draws were taken from it."""
        return {"epoch": self.epoch, "taken": self.taken}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to where a state says."""
        self.epoch, self.taken = int(state_dict["epoch"]), int(state_dict["taken"])
        self.rows_and_repeats = self.shard.of_epoch(self.epoch)
