"""Work spread over processes that survives the loss of one: a job that kills its process takes nobody with it.

A pool of Python's own loses everything when one worker dies; Dask starts another and says which jobs were lost. Those
are tried again piece by piece, at last one after the other, so that only the piece which kills is given up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol, TypeVar

Result_co = TypeVar("Result_co", covariant=True)
Result = TypeVar("Result")
JOBS_PER_WORKER = 4
"""How many are handed out ahead of time: enough to keep workers busy, few enough to keep memory flat."""


class Job(Protocol[Result_co]):
    """Some work that can be sent to another process."""

    def run(self) -> Sequence[Result_co]:
        """Do it."""

    def singly(self) -> Sequence[Job[Result_co]]:
        """Return a job for each piece, itself alone when it has but one."""

    def failed(self, error: BaseException) -> Sequence[Result_co]:
        """Return what is said of a piece that was lost with its process."""


def run_jobs(jobs: Iterable[Job[Result]], workers: int) -> Iterator[Sequence[Result]]:
    """Yield what comes of jobs, as it becomes known.

    Args:
        jobs: what to do; taken one by one, so that there may be any number of them.
        workers: processes of a local Dask cluster; 0 and 1 mean this process, and then jobs are done in order.

    Raises:
        OSError: what a job raised: a full disk is no matter of one piece of work.
    """
    if workers <= 1:
        for job in jobs:
            yield job.run()
        return
    coming = iter(jobs)
    first = next(coming, None)
    if first is None:
        return
    import dask
    from distributed import Client, KilledWorker, LocalCluster, as_completed

    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):  # it is tried again here, and in pieces
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
    with cluster, Client(cluster) as client:
        running: dict[Any, Job[Result]] = {}
        suspects: list[Job[Result]] = []
        waiting = as_completed()

        def submit(new: Iterable[Job[Result]]) -> None:
            for job in new:
                future = client.submit(run_job, job, pure=False)
                running[future] = job
                waiting.add(future)

        submit([first, *islice(coming, JOBS_PER_WORKER * workers - 1)])
        for future in waiting:
            job = running.pop(future)
            error = future.exception()
            if error is None:
                yield future.result()
            elif isinstance(error, OSError):
                raise error
            elif len(pieces := job.singly()) > 1:
                submit(pieces)
            elif isinstance(error, KilledWorker):
                suspects.append(job)
            else:
                yield job.failed(error)
            submit(islice(coming, 1))
        for job in suspects:  # alone, for whatever waited in the same process was lost with it, and blamed as well
            future = client.submit(run_job, job, pure=False)
            error = future.exception()
            yield future.result() if error is None else job.failed(error)


def run_job(job: Job[Result]) -> Sequence[Result]:
    """Do a job in the process that it was sent to."""
    return job.run()
