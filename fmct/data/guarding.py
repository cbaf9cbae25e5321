"""Work that may crash or hang, done in a child process: only the piece that was at work is given up.

Native code that faults takes its process with it, and one that hangs can't be stopped by a thread or a signal's
handler of the same process. So the child works and this process waits: for what comes of each piece, at most so long. A
child that dies or takes too long is replaced by a new one, which goes on with the next piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic

from fmct.data.guarded_child import Crashed, TimedOut, child_of_this_thread
from fmct.data.jobs import JobInParts, Result


@dataclass(frozen=True)
class Guarded(Generic[Result]):
    """A job done in a child process.

    Attributes:
        job: what to do.
        limit_s: how long a piece may take.
    """

    job: JobInParts[Result]
    limit_s: float

    def run(self) -> list[Result]:
        """Do it."""
        return [result for part in self.parts() for result in part]

    def parts(self) -> Iterator[Sequence[Result]]:
        """Do it piece by piece; of one that crashes or hangs, yield what the job says of it.

        Raises:
            NotWanted: when nobody waits for it any more.
            Exception: what the job raised.
        """
        pieces = self.job.singly()
        done = 0
        killed = False
        while done < len(pieces):
            child = child_of_this_thread()
            try:
                for part in child.parts(self.job.rest(done), self.limit_s):
                    yield part
                    done += 1
                    killed = False
            except (Crashed, TimedOut) as error:
                if isinstance(error, Crashed) and error.from_outside and not killed:
                    killed = True  # once more: whoever kills may not have meant this piece
                    continue
                yield pieces[done].failed(error)
                done += 1
                killed = False

    def singly(self) -> list[Guarded[Result]]:
        """Return a job for each piece."""
        return [Guarded(piece, self.limit_s) for piece in self.job.singly()]

    def rest(self, first: int) -> Guarded[Result]:
        """Return the job without the pieces before `first`."""
        return Guarded(self.job.rest(first), self.limit_s)

    def failed(self, error: BaseException) -> Sequence[Result]:
        """Return what is said of a piece that was lost with its process."""
        return self.job.failed(error)


def no_listener() -> None:
    """Tell nobody: nothing guards this process."""


listener: Callable[[], None] = no_listener


def sign_of_life() -> None:
    """Say that the work goes on although no piece is done yet: the time that it may take begins anew."""
    listener()
