"""Work spread over processes that survives the loss of one: a job that kills its process takes nobody with it.

A pool of Python's own loses everything when one worker dies; Dask starts another and says which jobs were lost. Those
are tried again piece by piece, at last one after the other, so that only the piece which kills is given up.
"""

from __future__ import annotations

import pickle
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Any, Generic

from fmct import __version__
from fmct.console.errors import FmctError
from fmct.data.clusters import Where, Workers
from fmct.data.jobs import Job, JobInParts, NotWanted, Result, parts_of, still_wanted

JOBS_PER_WORKER = 4
"""How many are handed out ahead of time: enough to keep workers busy, few enough to keep memory flat."""
JOBS_IN_PARTS_PER_WORKER = 2
SECONDS_BETWEEN_CHECKS = 2.0
SECONDS_BETWEEN_REPORTS = 2.0


def run_jobs(jobs: Iterable[Job[Result]], where: int | Workers) -> Iterator[Sequence[Result]]:
    """Yield what comes of jobs, as it becomes known.

    Args:
        jobs: what to do; taken one by one, so that there may be any number of them.
        where: workers that are connected already, or how many processes to start on this machine: 0 and 1 mean this
            process, and then jobs are done in order.

    Raises:
        OSError: what a job raised: a full disk is no matter of one piece of work.
        FmctError: likewise; also when the scheduler or all workers are gone.
    """
    coming = iter(jobs)
    first = next(coming, None)
    if first is None:
        return
    coming = chain([first], coming)
    if isinstance(where, int):
        with Where(where).connect() as workers:
            yield from run_jobs(coming, workers)
    elif where.client is None:
        for job in coming:
            yield from parts_of(job)
    else:
        yield from Spread(coming, where).results()


@dataclass
class Sent(Generic[Result]):
    """A job that was handed out.

    Attributes:
        job: what was.
        alone: nothing else is under way, so it is to blame if its process dies.
        known: the parts that were reported.
        future: Dask's handle; None for the moment before it is handed out.
    """

    job: Job[Result]
    alone: bool
    known: set[int] = field(default_factory=set)
    future: Any = None


@dataclass
class Finished(Generic[Result]):
    """What a worker returns: errors too, for what it raises would be written into logs with the job it was sent."""

    parts: list[Sequence[Result]]
    error: Exception | None = None


class Spread(Generic[Result]):
    """One run of `run_jobs` on the workers of a scheduler.

    Long jobs report what came of their pieces while they are at work, as events; all comes once more at their end, so
    that no event needs to arrive.
    """

    def __init__(self, jobs: Iterator[Job[Result]], workers: Workers) -> None:
        self.jobs = jobs
        self.workers = workers
        self.client = workers.client
        self.topic = f"fmct-{uuid.uuid4().hex}"
        self.inbox: SimpleQueue[tuple[int, bytes | None]] = SimpleQueue()
        self.sent: dict[int, Sent[Result]] = {}
        self.suspects: list[Job[Result]] = []
        self.number = 0
        self.checked = time.monotonic()

    def results(self) -> Iterator[Sequence[Result]]:
        """Yield what comes of the jobs."""
        self.client.subscribe_topic(self.topic, lambda event: self.inbox.put(tuple(event[1])))
        try:
            self._hand_out()
            while self.sent:
                number, report = self._next_message()
                if number in self.sent:
                    yield from self._reported(number, report) if report is not None else self._ended(number)
                self._hand_out()
        finally:
            if self.client.status == "running":
                self.client.unsubscribe_topic(self.topic)
                self.client.cancel([sent.future for sent in self.sent.values()])

    def _hand_out(self) -> None:
        while True:
            ahead = JOBS_PER_WORKER
            if any(isinstance(sent.job, JobInParts) for sent in self.sent.values()):
                ahead = JOBS_IN_PARTS_PER_WORKER
            if len(self.sent) >= ahead * max(self.workers.count(), 1):
                return
            job = next(self.jobs, None)
            if job is None:
                break
            self._send(job)
        if not self.sent and self.suspects:  # whatever waited in the same process was lost with it, and blamed as well
            self._send(self.suspects.pop(0), alone=True)

    def _send(self, job: Job[Result], alone: bool = False) -> None:
        self.number += 1
        sent = self.sent[self.number] = Sent(job, alone)
        sent.future = self.client.submit(run_job, job, self.topic, self.number, __version__, pure=False)
        sent.future.add_done_callback(lambda _, number=self.number: self.inbox.put((number, None)))

    def _next_message(self) -> tuple[int, bytes | None]:
        while True:
            if time.monotonic() - self.checked > SECONDS_BETWEEN_CHECKS:
                self.workers.check_alive()
                self.checked = time.monotonic()
            try:
                return self.inbox.get(timeout=SECONDS_BETWEEN_CHECKS)
            except Empty:
                continue

    def _reported(self, number: int, report: bytes) -> Iterator[Sequence[Result]]:
        for index, part in pickle.loads(report):  # noqa: S301 - from our workers, which are sent code to run
            yield from self._new(number, index, part)

    def _new(self, number: int, index: int, part: Sequence[Result]) -> Iterator[Sequence[Result]]:
        if index not in self.sent[number].known:
            self.sent[number].known.add(index)
            self.workers.done += 1
            yield part

    def _ended(self, number: int) -> Iterator[Sequence[Result]]:
        sent = self.sent[number]
        finished = self._finished(sent.future)
        if isinstance(finished, Finished):
            for index, part in enumerate(finished.parts):
                yield from self._new(number, index, part)
        del self.sent[number]
        error = finished.error if isinstance(finished, Finished) else finished
        if error is None:
            return
        if isinstance(error, (OSError, FmctError)):
            raise error
        left = [piece for index, piece in enumerate(sent.job.singly()) if index not in sent.known]
        if len(left) > 1 or isinstance(error, NotWanted):  # cancelled by the scheduler, and wanted again meanwhile
            for piece in left:
                self._send(piece)
        elif not isinstance(finished, Finished) and not sent.alone:
            self.suspects += left
        else:
            for piece in left:
                yield piece.failed(error)

    def _finished(self, future: Any) -> Finished[Result] | Exception:
        """Return what a job's worker returned, or that it was lost.

        Raises:
            FmctError: when that is no matter of the job: the scheduler is gone, or a worker can't run it.
        """
        from distributed import KilledWorker

        try:
            finished: Finished[Result] = future.result()
        except KilledWorker as error:
            lost: Exception = error
            return lost
        except Exception as error:
            if future.status == "cancelled" or isinstance(error, (OSError, TimeoutError)):
                raise self.workers.scheduler_gone() from error
            what = f"a worker can't do the work ({type(error).__name__}: {error})"
            fix = f"install fmct {__version__} where the workers run, and start them again"
            raise FmctError(what, self.workers.name, fix) from error
        return finished


def run_job(job: Job[Result], topic: str, number: int, version: str) -> Finished[Result]:
    """Do a job in the process that it was sent to.

    Args:
        job: what to do.
        topic: under which to report what came of pieces meanwhile.
        number: which job it is in the reports.
        version: of fmct, where the job comes from.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()
    if version != __version__:
        fix = f"install fmct {version} there, and start the workers again"
        return Finished([], FmctError(f"a worker has fmct {__version__}, this is {version}", worker.address, fix))

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state == "executing"  # otherwise whoever sent it is gone or has cancelled it

    still_wanted.set(wanted)
    finished: Finished[Result] = Finished([])
    unreported: list[tuple[int, Sequence[Result]]] = []
    reported = time.monotonic()
    try:
        for index, part in enumerate(parts_of(job)):
            finished.parts.append(part)
            unreported.append((index, part))
            if isinstance(job, JobInParts) and time.monotonic() - reported > SECONDS_BETWEEN_REPORTS:
                worker.log_event(topic, [number, pickle.dumps(unreported)])
                unreported, reported = [], time.monotonic()
            if not wanted():
                raise NotWanted
    except Exception as error:  # noqa: BLE001 - whoever sent the job decides what becomes of it
        finished.error = error
    return finished
