"""What can be spread over processes: a job of several pieces, done at once or piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Protocol, TypeVar, runtime_checkable

Result_co = TypeVar("Result_co", covariant=True)
Result = TypeVar("Result")


class Job(Protocol[Result_co]):
    """Some work that can be sent to another process."""

    def run(self) -> Sequence[Result_co]:
        """Do it."""

    def singly(self) -> Sequence[Job[Result_co]]:
        """Return a job for each piece, itself alone when it has but one."""

    def failed(self, error: BaseException) -> Sequence[Result_co]:
        """Return what is said of a piece that was lost with its process."""


@runtime_checkable
class JobInParts(Protocol[Result_co]):
    """A long job: what comes of each piece is known, and kept, before the next is begun."""

    def run(self) -> Sequence[Result_co]:
        """Do it."""

    def parts(self) -> Iterator[Sequence[Result_co]]:
        """Do it piece by piece, in the order of `singly`, yielding what comes of each."""

    def singly(self) -> Sequence[JobInParts[Result_co]]:
        """Return a job for each piece."""

    def rest(self, first: int) -> JobInParts[Result_co]:
        """Return the job without the pieces before `first`."""

    def failed(self, error: BaseException) -> Sequence[Result_co]:
        """Return what is said of a piece that was lost with its process."""


def parts_of(job: Job[Result]) -> Iterator[Sequence[Result]]:
    """Do a job, yielding what comes of it as soon as it is known."""
    if isinstance(job, JobInParts):
        yield from job.parts()
    else:
        yield job.run()


def always() -> bool:
    """Return that the work is wanted."""
    return True


still_wanted: ContextVar[Callable[[], bool]] = ContextVar("still_wanted", default=always)
"""Tells whether anybody still waits for the work that is being done; asked by work that takes long."""


class NotWanted(Exception):  # noqa: N818 - it is no error
    """The work was given up by whoever asked for it."""
