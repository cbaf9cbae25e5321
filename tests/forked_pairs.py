"""Runs `fmct fit` as two processes, job after job: `python forked_pairs.py '[{"flags": [...], "killed_at": 4}, ...]'`.

Each process is a fork of this one, so that all of them wait for torch's import once; a launcher such as torchrun would
set the same variables. With `killed_at`, both die as `kill -9` does it once that step's batch is there. Losses of every
step are written to RUNS/losses_RANK.json, RUNS being the value of --trainer.runs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import torch

from fmct.callbacks.nan_guard import NanGuard
from fmct.fit import main
from fmct.tasks.base import Task

PROCESSES = 2


def run(rank: int, port: int, flags: list[str], killed_at: int | None) -> None:
    """Be one of the processes."""
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    losses: list[float] = []

    def record(_task: Task, outputs: Any, _batch: Any, _number: int) -> None:
        losses.append(float(outputs["loss"]))

    def die(_guard: NanGuard, trainer: Any, *_: Any) -> None:
        if trainer.global_step == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    Task.on_train_batch_end = record  # type: ignore[assignment]
    NanGuard.on_train_batch_start = die  # type: ignore[method-assign]
    code = main([*flags, "--trainer.devices", str(PROCESSES)])
    (Path(flags[flags.index("--trainer.runs") + 1]) / f"losses_{rank}.json").write_text(json.dumps(losses))
    os._exit(code)


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


if __name__ == "__main__":
    torch.set_num_threads(1)
    for job in json.loads(sys.argv[1]):
        port, children = free_port(), []
        for rank in range(PROCESSES):
            child = os.fork()
            if child == 0:
                run(rank, port, job["flags"], job["killed_at"])
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if job["killed_at"] is None:
            assert codes == [0] * PROCESSES, f"ended with {codes}: {job}"
        else:
            assert -signal.SIGKILL in codes, f"ended with {codes}: {job}"  # the other may find it gone before
