"""The loader: from draws to batches, in worker processes, resumable within an epoch."""

from __future__ import annotations

import gc
import random
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import blosc2
import numpy as np
import torch
from torch.utils.data import get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader

from fmct.data.dataset import Batch, ScanDataset
from fmct.data.quarantine import refuse
from fmct.data.sharding import Shard
from fmct.data.worker_watch import Reading, Watched, leave_signals_to_the_trainer


class ScanLoader(StatefulDataLoader):  # type: ignore[misc]
    """Batches of scans. Its state, saved in checkpoints, is the epoch and the place in it of the batch given out last.

    Attributes:
        admit: looks at every batch, in the training process, for scans that could not be read.
        reading: what the workers are reading.
        watched: the batches of the present epoch.
    """

    admit: Callable[[Batch], Batch] = staticmethod(refuse)
    reading: Reading
    watched: Watched | None = None

    def __iter__(self) -> Iterator[Batch]:
        """Start the workers, and return their batches as `admit` lets them through."""
        self.watched = Watched(super().__iter__(), self.reading, self.dataset)
        return map(self.admit, self.watched)

    def end(self) -> None:
        """End the workers, if there are any.

        At its exit Python asks each of them once, by SIGTERM, and then waits; but they live on after the first one, see
        `leave_signals_to_the_trainer`. Lightning, when it is done, only forgets the iterator.
        """
        if self.num_workers and self.watched is not None:
            self.watched.end_workers()


def scan_loader(
    data: ScanDataset,
    batch_size: int,
    workers: int,
    *,
    shard: Shard | None = None,
    prefetch_batches: int = 2,
    pin_memory: bool = False,
    seed: int = 0,
    timeout_s: int = 0,
) -> ScanLoader:
    """Build a loader.

    Args:
        data: the scans.
        batch_size: scans per batch.
        workers: processes; 0 loads in this one.
        shard: which scans, in which order; None: all, in the data set's order.
        prefetch_batches: batches that each worker reads ahead.
        pin_memory: put batches where a GPU can fetch them.
        seed: of the workers' random numbers, of which reading a scan draws none.
        timeout_s: seconds that a batch is waited for, where workers load; 0: for ever.

    Returns:
        Its batches are those of `ScanDataset.__getitems__`, without `unread`.
    """
    rank = shard.rank if shard else 0
    reading = Reading(workers)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'set_vital' is deprecated")  # between torchdata and torch
        loader = ScanLoader(
            data,
            batch_size=batch_size,
            sampler=shard,
            num_workers=workers,
            collate_fn=as_is,
            pin_memory=pin_memory,
            worker_init_fn=partial(start_watched_worker, seed, rank, reading),
            timeout=timeout_s if workers else 0,
            generator=torch.Generator().manual_seed(seed),
            prefetch_factor=prefetch_batches if workers else None,
            persistent_workers=workers > 0,
        )
    loader.reading = reading
    return loader


def as_is(batch: Batch) -> Batch:
    """Return a batch as the data set made it."""
    return batch


def start_watched_worker(seed: int, rank: int, reading: Reading, worker: int) -> None:
    """Prepare a loader process, which notes what it reads; see `start_worker` for the others."""
    leave_signals_to_the_trainer()
    reading.enter(worker)
    this: Any = get_worker_info()
    this.dataset.noted = reading.row
    start_worker(seed, rank, worker)


def start_worker(seed: int, rank: int, worker: int) -> None:
    """Prepare a loader process: one thread, since there is a process per core, and random numbers of its own.

    What it inherits is kept from garbage collection, which would write to all of it and so copy it.

    Args:
        seed: of the run.
        rank: of the training process.
        worker: number of the loader process.
    """
    gc.freeze()
    blosc2.set_nthreads(1)
    torch.set_num_threads(1)
    own = int(np.random.SeedSequence([seed, rank, worker]).generate_state(1)[0])
    torch.manual_seed(own)
    np.random.seed(own)  # noqa: NPY002 - for libraries that draw from NumPy's global state
    random.seed(own)
