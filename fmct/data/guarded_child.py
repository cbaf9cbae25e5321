"""A child process that may die or hang, and what is known of how it did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from typing import Any

from fmct.console.errors import FmctError
from fmct.data.code_places import innermost_place
from fmct.data.jobs import JobInParts, NotWanted, Result, still_wanted
from fmct.data.worker_environment import WORKER_ENVIRONMENT

SECONDS_TO_START = 300.0
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_DIE = 10.0


class Crashed(Exception):  # noqa: N818 - what became of a child, not what this process did wrong
    """A child died.

    Args:
        detail: of what, and at which line of code.
        from_outside: it was killed; the piece may have no part in it.
    """

    def __init__(self, detail: str, from_outside: bool = False) -> None:
        super().__init__(detail, from_outside)
        self.detail = detail
        self.from_outside = from_outside


class TimedOut(Exception):  # noqa: N818
    """A piece wasn't done in time; the text says where it was."""


class Child:
    """A running `guarded_worker`."""

    def __init__(self) -> None:
        self.pipe, theirs = Pipe()
        self.notes = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        handles = (theirs.fileno(), self.notes.fileno())
        self.process = subprocess.Popen(  # noqa: S603 - this very Python
            [sys.executable, "-m", "fmct.data.guarded_worker", *map(str, handles)],
            pass_fds=handles,
            env=os.environ | WORKER_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C isn't for it, and what it has started dies with it
        )
        theirs.close()
        self.owner = os.getpid()
        self.idle = False

    def parts(self, job: JobInParts[Result], limit_s: float) -> Iterator[Sequence[Result]]:
        """Have a job done, yielding what comes of each piece.

        Raises:
            Crashed: when the child died of a piece.
            TimedOut: when a piece wasn't done in time; the child is dead then.
            NotWanted: when nobody waits for it any more; likewise.
            Exception: what the job raised.
        """
        try:
            if not self.idle:
                self._expect("ready")
            self.idle = False
            self._send((job, limit_s))
            self._expect("begun")  # with the job's modules imported, which can take longer than a piece
            while True:
                kind, value = self._receive(limit_s)
                if kind == "part":
                    yield value
                elif kind == "error":
                    self.idle = True
                    raise value
                elif kind == "done":
                    self.idle = True
                    return
        finally:
            if not self.idle:
                self.close()

    def alive(self) -> bool:
        """Tell whether the process runs and is this process's child (after a fork it isn't)."""
        return self.owner == os.getpid() and self.process.poll() is None

    def close(self) -> None:
        """End the process and what it has started."""
        if self.owner != os.getpid() or self.notes.closed:
            return
        with suppress(ProcessLookupError, PermissionError):  # all gone already
            os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # stuck in the kernel: no signal reaches it before its disk answers
            self.process.wait(SECONDS_TO_DIE)
        self.pipe.close()
        self.notes.close()

    def _expect(self, word: str) -> None:
        """Wait for a step that has nothing to do with any piece.

        Raises:
            FmctError: when it fails: then it would fail for all pieces.
        """
        try:
            kind, value = self._receive(SECONDS_TO_START)
        except (Crashed, TimedOut) as error:
            if isinstance(error, Crashed) and error.from_outside:
                raise
            what = f"a process that is to do the work can't be started ({error.args[0]})"
            fix = "try `python -m fmct.data.guarded_worker` on that machine: it says what is wrong"
            raise FmctError(what, f"{sys.executable} on {os.uname().nodename}", fix) from error
        if kind == "error":
            self.idle = True
            raise value
        assert kind == word

    def _send(self, message: Any) -> None:
        try:
            self.pipe.send(message)
        except OSError as error:
            raise Crashed(self._cause(), from_outside=True) from error  # it died before it had anything to do

    def _receive(self, limit_s: float) -> tuple[str, Any]:
        end = time.monotonic() + limit_s
        try:
            while not self.pipe.poll(min(SECONDS_BETWEEN_LOOKS, max(end - time.monotonic(), 0))):
                if not still_wanted.get()():
                    raise NotWanted
                if time.monotonic() >= end:
                    raise TimedOut(f"not done after {limit_s:g} s{self._place_when_asked()}")
            message: tuple[str, Any] = self.pipe.recv()
        except (EOFError, ConnectionError) as error:
            cause = self._cause()
            raise Crashed(cause, self.process.returncode == -signal.SIGKILL) from error
        return message

    def _cause(self) -> str:
        """Return what a child died of."""
        status = self.process.wait(SECONDS_TO_DIE)
        how = f"ended with status {status}" if status >= 0 else f"died of {signal.Signals(-status).name}"
        if status == -signal.SIGKILL:
            how += ", maybe for want of memory"
        return how + innermost_place(self.notes)

    def _place_when_asked(self) -> str:
        self.process.send_signal(signal.SIGUSR1)  # the child's fault handler writes down where it is
        time.sleep(SECONDS_BETWEEN_LOOKS)
        return innermost_place(self.notes)


class ChildOfThread(threading.local):
    """The child of the thread that asks; a process with several working threads has one for each."""

    child: Child | None = None


here = ChildOfThread()


def child_of_this_thread() -> Child:
    """Return a child that can work, a new one where the last has died."""
    if here.child is None or not here.child.alive():
        if here.child is not None:
            here.child.close()
        here.child = Child()
    return here.child


def close_child() -> None:
    """End this thread's child, if there is one."""
    if here.child is not None:
        here.child.close()
    here.child = None
