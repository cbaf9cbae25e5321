"""Starts studies that are killed while they train: `python killed_studies.py '[[trainings before, [arguments]], ...]'`.

Each runs in a fork of this process, so that all of them wait for torch's import once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import torch

from fmct.callbacks.nan_guard import NanGuard
from fmct.cli import main


def run_and_die(trainings: int, arguments: list[str]) -> None:
    """Run a command until the last step of the training after so many."""
    begun: list[int] = []

    def die(_guard: NanGuard, trainer: Any, *_: Any) -> None:
        begun.append(trainer.global_step)
        if begun.count(0) > trainings and trainer.global_step == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    NanGuard.on_train_batch_start = die  # type: ignore[method-assign]
    sys.exit(main(arguments))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for trainings, arguments in json.loads(sys.argv[1]):
        child = os.fork()
        if child == 0:
            run_and_die(trainings, arguments)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == -signal.SIGKILL, f"ended with {code}"
