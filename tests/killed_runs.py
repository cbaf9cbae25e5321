"""Starts runs that are killed at a step, as `kill -9` does it: `python killed_runs.py '[[step, [flags of fit]], ...]'`.

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
from fmct.fit import main


def run_and_die(step: int, arguments: list[str]) -> None:
    """Run `fmct fit` until the batch for a step is there."""

    def die(_guard: NanGuard, trainer: Any, *_: Any) -> None:
        if trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    NanGuard.on_train_batch_start = die  # type: ignore[method-assign]
    sys.exit(main(arguments))


if __name__ == "__main__":
    torch.set_num_threads(1)  # sums come out the same bit for bit only with the same number
    for step, arguments in json.loads(sys.argv[1]):
        child = os.fork()
        if child == 0:
            run_and_die(step, arguments)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == -signal.SIGKILL, f"ended with {code} before step {step}"
