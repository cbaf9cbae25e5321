"""Runs `fmct fit` while something goes wrong, job after job: `python faulty_runs.py JOBS.json OUTCOMES.json`.

Each process of a run is a fork of this one, so that all of them wait for torch's import once; a launcher such as
torchrun would set the same variables. A job has `flags`; `processes`; and `fault`, a function below, which happens in
process `of` when step `at` begins. What it prints goes to `printed`.out and .err.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import torch
from forked_pairs import free_port

from fmct.callbacks.nan_guard import NanGuard
from fmct.console.leaving import leave
from fmct.fit import main


def asked(number: int, times: int = 1) -> None:
    """Ask all processes of this one's group to end, as a terminal does, and SLURM."""
    for _ in range(times):
        os.killpg(os.getpgrp(), number)
        time.sleep(0.05)


FAULTS = {
    "none": lambda: None,
    "SIGTERM": lambda: asked(signal.SIGTERM),
    "SIGUSR1": lambda: asked(signal.SIGUSR1),
    "SIGINT": lambda: asked(signal.SIGINT),
    "SIGINT twice": lambda: asked(signal.SIGINT, 2),
    "SIGTERM to one": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "dies": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hangs": lambda: time.sleep(600),
    "raises": lambda: 1 / 0,
}


def run(rank: int, port: int, job: dict[str, Any]) -> NoReturn:
    """Be a process of a run."""
    for stream, suffix in ((1, ".out"), (2, ".err")):
        file = os.open(job["printed"] + suffix, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, stream)
    if job["processes"] > 1:
        os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    before = NanGuard.on_train_batch_start

    def happen(guard: NanGuard, trainer: Any, *more: Any) -> None:
        before(guard, trainer, *more)
        if trainer.global_step == job["at"] and rank == job.get("of", 0):
            FAULTS[job["fault"]]()

    NanGuard.on_train_batch_start = happen  # type: ignore[method-assign]
    processes = ["--trainer.devices", str(job["processes"])]
    leave(main([*job["flags"], *(processes if job["processes"] > 1 else [])]))


def outcome(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job; processes that are left after a minute are killed, and count as such."""
    port, start, children = free_port(), time.monotonic(), []
    for rank in range(job["processes"]):
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            run(rank, port, job)
        children.append(child)
    codes: dict[int, int] = {}
    while len(codes) < len(children):
        if time.monotonic() - start > 100:
            for child in set(children) - set(codes):
                os.kill(child, signal.SIGKILL)
        for child in set(children) - set(codes):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
        if job["fault"] == "hangs" and len(codes) == len(children) - 1:  # what a launcher would do
            (left,) = set(children) - set(codes)
            os.kill(left, signal.SIGKILL)
        time.sleep(0.02)
    return {"codes": [codes[child] for child in children], "seconds": time.monotonic() - start}


if __name__ == "__main__":
    torch.set_num_threads(1)  # sums come out the same bit for bit only with the same number
    jobs = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps({job["name"]: outcome(job) for job in jobs}))
