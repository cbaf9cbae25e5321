"""The runs of a study side by side: several processes, each of which takes the next run that nobody has begun."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from fmct.console.environment import changed_environment
from fmct.console.interruption import interruptible
from fmct.console.quietly import Outcome, PreemptedError
from fmct.experiment.combination import Combination, free_memory

STOPPED = "stopped"


@dataclass
class Helper:
    """A process that does runs.

    Attributes:
        process: it.
        pipe: runs go in, outcomes come out.
        busy: the run that it is at.
    """

    process: BaseProcess
    pipe: Connection[Any, Any]
    busy: Combination | None = None

    def give(self, one: Combination) -> None:
        """Let it do a run."""
        self.busy = one
        self.pipe.send(one)

    def outcome(self) -> Outcome:
        """Return how its run ended; a process that died is a run that failed.

        Raises:
            KeyboardInterrupt: when it was asked to end.
        """
        try:
            said = self.pipe.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            return Outcome(1, f"the process that did it {how}; a kill may mean that memory ran out: take fewer --jobs")
        if said == STOPPED:
            raise KeyboardInterrupt
        outcome: Outcome = said
        return outcome


def side_by_side(
    combinations: Sequence[Combination], jobs: int, begins: Callable[[Combination], None]
) -> Iterator[tuple[Combination, Outcome]]:
    """Do runs in processes of their own, and yield each with its outcome as it ends.

    Every process has its share of the threads that this one would use and, where there are several GPUs, one of them.

    Args:
        combinations: the runs.
        jobs: how many at a time.
        begins: called with a run as it is handed out.

    Raises:
        PreemptedError: when this or one of the processes was asked to end; all have ended then.
    """
    left = list(reversed(combinations))
    helpers = [start(environment(number, jobs)) for number in range(min(jobs, len(left)))]
    try:
        with interruptible():
            for helper in helpers:
                hand_out(left, helper, begins)
            while busy := {helper.pipe: number for number, helper in enumerate(helpers) if helper.busy}:
                for pipe in wait(list(busy)):
                    number = busy[pipe]  # type: ignore[index]  # no other kind of object was waited for
                    helper = helpers[number]
                    one, outcome = helper.busy, helper.outcome()
                    assert one is not None
                    helper.busy = None
                    if not helper.process.is_alive() and left:
                        helper = helpers[number] = start(environment(number, jobs))
                    hand_out(left, helper, begins)
                    yield one, outcome
    except KeyboardInterrupt:
        raise PreemptedError(
            "the runs were asked to end; what they did is saved",
            f"{jobs} processes",
            "run it again: it goes on from there",
        ) from None
    finally:
        end(helpers)


def hand_out(left: list[Combination], helper: Helper, begins: Callable[[Combination], None]) -> None:
    """Give a process the next run, if there is one."""
    if left:
        begins(left[-1])
        helper.give(left.pop())


def environment(number: int, jobs: int) -> dict[str, str]:
    """Return what a process finds in its environment: its number of threads, and its GPU where there are several."""
    found = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // jobs))}
    count = torch.cuda.device_count()
    if count > 1:
        devices = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
        found["CUDA_VISIBLE_DEVICES"] = devices[number % count]
    return found


def start(variables: Mapping[str, str]) -> Helper:
    """Start a process that does runs."""
    fresh = multiprocessing.get_context("spawn")
    ours, theirs = fresh.Pipe()
    process = fresh.Process(target=do_runs, args=(theirs,))
    with changed_environment(variables):
        process.start()
    theirs.close()
    return Helper(process, ours)


def end(helpers: Sequence[Helper]) -> None:
    """Let processes end: at once those that wait, the others after the step that they are in."""
    for helper in helpers:
        if helper.busy and helper.process.is_alive():
            helper.process.terminate()
        helper.pipe.close()
    for helper in helpers:
        helper.process.join()


def do_runs(pipe: Connection[Any, Any]) -> None:
    """Do the runs that come, until nobody sends any more."""
    try:
        while True:
            one: Combination = pipe.recv()
            pipe.send(one.run())
            free_memory()
    except (KeyboardInterrupt, PreemptedError):
        with suppress(BrokenPipeError):
            pipe.send(STOPPED)
    except (EOFError, BrokenPipeError):  # who gave the runs is gone
        return
