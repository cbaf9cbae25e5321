"""The processes that the first one of a run has started, where Lightning does: none outlives it, none dies unsaid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import lightning as L
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from fmct.console.errors import ExitCode, FmctError
from fmct.experiment.speaking import first_to_speak

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_OF_GRACE = 15.0
SECONDS_TO_END = 5.0


class ChildWatch(threading.Thread):
    """Ends this process when a child has failed and it hasn't noticed by itself: in a collective it may wait for ever.

    In place of Lightning's observer, which kills this process at once, before it can say why.

    Args:
        children: what this process has started.
    """

    def __init__(self, children: Sequence[subprocess.Popen[bytes]]) -> None:
        super().__init__(daemon=True, name="child-watch")
        self.children = children
        self.noticed = threading.Event()

    def run(self) -> None:
        """Look every second."""
        while not any(child.poll() for child in self.children):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        if self.noticed.wait(SECONDS_OF_GRACE):
            return
        if first_to_speak():
            error = FmctError(
                how_ended(self.children),
                "a run of several processes, of which the first one waits for it",
                "look at what it printed, and whether memory ran out (dmesg); the same command goes on from the last "
                "checkpoint",
            )
            print(f"error: {error}", file=sys.stderr, flush=True)
        kill(self.children)
        os._exit(ExitCode.FAILED)


def children_of(trainer: L.Trainer) -> list[subprocess.Popen[bytes]]:
    """Return the processes that this one has started to train with it."""
    launcher = trainer.strategy.launcher
    return launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []


def watch_children(trainer: L.Trainer) -> None:
    """Watch the children of this process, and keep Lightning from doing so in its way."""
    children = children_of(trainer)
    if not children:
        return
    for thread in threading.enumerate():
        if isinstance(thread, _ChildProcessObserver):
            thread._child_processes = []  # all of none have ended well, which ends it
    ChildWatch(children).start()


def end_children(trainer: L.Trainer) -> None:
    """End the children of this process, which is about to end, if they don't by themselves; nobody else would."""
    for thread in threading.enumerate():
        if isinstance(thread, ChildWatch):
            thread.noticed.set()
    deadline = time.monotonic() + SECONDS_TO_END
    for child in children_of(trainer):
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            kill([child])


def kill(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kill children, also those that hang."""
    for child in children:
        child.kill()
        child.wait()


def how_children_ended(trainer: L.Trainer) -> str:
    """Say which children of this process have failed, and how; empty, where none has."""
    return how_ended(children_of(trainer))


def how_ended(children: Sequence[subprocess.Popen[bytes]]) -> str:
    """Say which children have failed, and how."""
    said = []
    for rank, child in enumerate(children, 1):
        code = child.poll()
        if code:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            said.append(f"process {rank} (pid {child.pid}) {how}")
    return ", ".join(said)
