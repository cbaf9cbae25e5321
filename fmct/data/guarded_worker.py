"""The process in which guarded work is done, see `guarding`; run as `python -m fmct.data.guarded_worker`.

It is given a pipe, on which jobs come and what comes of them goes, and a file for notes on where it was when it died.
It dies with its parent.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from fmct.data import guarding
from fmct.data.code_places import place_of
from fmct.data.jobs import JobInParts

SECONDS_ALLOWED_TO_PARENT = 60.0


def main(pipe_handle: int, notes_handle: int) -> None:
    """Do jobs until the parent is gone."""
    faulthandler.enable(notes_handle, all_threads=False)
    faulthandler.register(signal.SIGUSR1, notes_handle, all_threads=False)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # at the end of a SLURM job all get it; the parent decides
    pipe: Connection[Any, Any] = Connection(pipe_handle)
    jobs: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=receive, args=(pipe, jobs), daemon=True).start()
    guarding.listener = lambda: pipe.send(("alive", None))
    pipe.send(("ready", None))
    while True:
        try:
            job, limit_s = pickle.loads(jobs.get())  # noqa: S301 - from the parent
            pipe.send(("begun", None))
            work(job, limit_s, pipe, notes_handle)
            answer: tuple[str, Any] = ("done", None)
        except Exception as error:  # noqa: BLE001 - the parent raises it
            answer = ("error", sendable(error))
        faulthandler.cancel_dump_traceback_later()
        pipe.send(answer)


def work(job: JobInParts[Any], limit_s: float, pipe: Connection[Any, Any], notes_handle: int) -> None:
    """Do a job and send what comes of each piece."""

    def end_if_forgotten() -> None:  # the parent ends a child that hangs; this one ends itself if the parent is gone
        faulthandler.dump_traceback_later(limit_s + SECONDS_ALLOWED_TO_PARENT, file=notes_handle, exit=True)

    end_if_forgotten()
    for part in job.parts():
        pipe.send(("part", part))
        end_if_forgotten()


def receive(pipe: Connection[Any, Any], jobs: SimpleQueue[bytes]) -> None:
    """Take in what the parent sends; when it is gone, end this process and all that it has started."""
    try:
        while True:
            jobs.put(pipe.recv_bytes())
    except (EOFError, OSError):
        os.killpg(0, signal.SIGKILL)


def sendable(error: Exception) -> Exception:
    """Return an error that survives being sent: itself, or where it was raised."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - made in this line
    except Exception:  # noqa: BLE001 - any error may have any way of not being picklable
        return RuntimeError(place_of(error))
    return error


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(int(sys.argv[1]), int(sys.argv[2]))
    print("this process can be started; it is for fmct's own use")
