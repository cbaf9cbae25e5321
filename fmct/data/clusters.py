"""Where work runs: in this process, in processes of this machine, or in those of a Dask scheduler or of SLURM jobs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmct.console.errors import FmctError
from fmct.data.dask_clusters import address_of, client_of, local_cluster, quiet_dask
from fmct.data.guarded_child import close_child
from fmct.data.slurm import SlurmJobs, SlurmQueue, slurm_queue

SECONDS_WITHOUT_WORKERS = 120.0
SECONDS_BETWEEN_COUNTS = 2.0
SECONDS_BETWEEN_NOTES = 60.0
GO_ON = "and run the same command again: what is done is kept"


@dataclass(frozen=True)
class Where:
    """Where work is to run; at most one of the three.

    Attributes:
        workers: processes of this machine; 0 is this one, and 1 is this one for work that isn't guarded.
        scheduler: address (`tcp://host:8786`, `tls://...`) or scheduler file of a running Dask scheduler.
        slurm: jobs to ask SLURM for.
        logs: folder for what SLURM's jobs print.
    """

    workers: int = 0
    scheduler: str | None = None
    slurm: SlurmJobs | None = None
    logs: Path = Path("slurm")

    def __str__(self) -> str:
        if self.slurm is not None:
            return f"{self.slurm.jobs} SLURM jobs of {self.slurm.cores} cores"
        if self.scheduler is not None:
            return f"the workers of {self.scheduler}"
        if self.workers == 0:
            return "this process"
        return f"{self.workers} process{'es' if self.workers > 1 else ''} of this machine"

    @property
    def elsewhere(self) -> bool:
        """Whether the work may run on other machines."""
        return self.scheduler is not None or self.slurm is not None

    @property
    def in_this_process(self) -> bool:
        """Whether the work runs in this very process, where nothing protects from it."""
        return self.workers == 0 and not self.elsewhere

    @contextmanager
    def connect(self) -> Iterator[Workers]:
        """Start or find the workers; at the end, stop those that were started.

        Raises:
            UsageError: when no scheduler answers, or SLURM can't be asked for jobs.
        """
        if self.slurm is not None:
            with quiet_dask(), slurm_queue(self.slurm, self.logs) as queue, client_of(queue.cluster) as client:
                yield Workers(client, str(self), queue)
        elif self.scheduler is not None:
            with quiet_dask(), client_of(address_of(self.scheduler)) as client:
                yield Workers(client, str(self))
        elif self.workers > 1:
            with quiet_dask(), local_cluster(self.workers) as cluster, client_of(cluster) as client:
                yield Workers(client, str(self))
        else:
            try:
                yield Workers(None, str(self))
            finally:
                close_child()


class Workers:
    """Processes that work can be sent to.

    Args:
        client: of the scheduler they belong to; None means that this process does the work.
        name: what they are, for messages.
        queue: the SLURM jobs they are in.
    """

    def __init__(self, client: Any, name: str, queue: SlurmQueue | None = None) -> None:
        self.client = client
        self.name = name
        self.queue = queue
        self.done = 0
        self._count = 1
        self._counted = -SECONDS_BETWEEN_COUNTS
        self._last_seen = time.monotonic()

    def count(self) -> int:
        """Return how many jobs they can do at a time; 0 while there are no workers.

        Raises:
            FmctError: when the scheduler is gone.
        """
        now = time.monotonic()
        if self.client is None or now - self._counted < SECONDS_BETWEEN_COUNTS:
            return self._count
        if self.client.status != "running":
            raise self.scheduler_gone()
        try:
            self._count = sum(self.client.nthreads().values())
        except (OSError, TimeoutError) as error:
            raise self.scheduler_gone() from error
        self._counted = now
        if self._count:
            self._last_seen = now
        return self._count

    def check_alive(self) -> None:
        """Check that work can still be done, and replace SLURM jobs that have ended.

        Raises:
            FmctError: when the scheduler is gone, or there have been no workers for long.
        """
        count = self.count()
        if self.queue is not None:
            self.queue.keep_up(self.done)
        elif count == 0 and time.monotonic() - self._last_seen > SECONDS_WITHOUT_WORKERS:
            what = f"there has been no worker for {SECONDS_WITHOUT_WORKERS:.0f} s"
            raise FmctError(what, self.name, f"start workers, {GO_ON}")

    def wait_for_first(self) -> None:
        """Wait until there is a worker: for SLURM as long as it takes, for others `SECONDS_WITHOUT_WORKERS`.

        Raises:
            FmctError: when none comes.
        """
        noted = time.monotonic()
        while self.count() == 0:
            if time.monotonic() - noted > SECONDS_BETWEEN_NOTES:
                print(f"waiting for {self.name}", file=sys.stderr, flush=True)
                noted = time.monotonic()
            self.check_alive()
            time.sleep(SECONDS_BETWEEN_COUNTS / 4)
            self._counted = -SECONDS_BETWEEN_COUNTS

    def scheduler_gone(self) -> FmctError:
        """Return the error about a scheduler that doesn't answer any more."""
        return FmctError("the scheduler is gone", self.name, f"see why it ended, start it again, {GO_ON}")
