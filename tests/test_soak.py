"""Hours of training, ended every minute by a random signal, come to the weights of training that nobody disturbed.

`FMCT_SOAK_MINUTES=120 pytest -m slow tests/test_soak.py -s` trains both side by side, one thread each; without the
variable it takes three minutes.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import TinyCohort
from test_resume import Case, arguments, same

from fmct.console.errors import ExitCode

MARK = 100  # steps between two checkpoints that are kept for the comparison
SAVED_EVERY = 20
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1)
CASE = Case("joint", workers=1, every=SAVED_EVERY, killed_at=0, goes_on_from=0)
ENDLESS = [
    *("--trainer.max_steps", "1000000", "--trainer.max_epochs", "1000000", "--trainer.checkpoint_every_epochs", "1000"),
    *("--trainer.log_every_steps", "20", "--trainer.tensorboard", "false", "--trainer.pictures_every_steps", "0"),
]


class Training:
    """A run in a process of its own, started again whenever it has ended."""

    def __init__(self, cohort: TinyCohort, runs: Path) -> None:
        self.command = [sys.executable, "-m", "fmct.fit", *arguments(cohort, runs, CASE), *ENDLESS]
        self.checkpoints = runs / CASE.folder / CASE.experiment / "checkpoints"
        self.marks = runs / "marks"
        self.marks.mkdir(parents=True)
        self.log = runs / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )

    def end(self, how: signal.Signals) -> int:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        self.process.send_signal(how)
        return self.process.wait(timeout=120)

    def keep_marks(self) -> None:
        """Keep the checkpoints of every so many steps, which the run itself removes."""
        for file in self.checkpoints.glob("step*.ckpt"):
            if int(file.stem.removeprefix("step")) % MARK == 0 and not (self.marks / file.name).exists():
                try:
                    os.link(file, self.marks / file.name)
                except FileNotFoundError:
                    continue  # removed in between: it was kept before, or is lost to the comparison


@pytest.mark.slow
def test_hours_of_kills_change_no_weight(tiny: TinyCohort, tmp_path: Path) -> None:
    minutes = float(os.environ.get("FMCT_SOAK_MINUTES", "3"))
    between = (30.0, 90.0) if minutes > 30 else (15.0, 30.0)
    disturbed, whole = Training(tiny, tmp_path / "disturbed"), Training(tiny, tmp_path / "whole")
    rng, ends = random.Random(0), Counter[str]()
    deadline = time.monotonic() + 60 * minutes
    whole.start()
    try:
        while time.monotonic() < deadline:
            disturbed.start()
            until = min(time.monotonic() + rng.uniform(*between), deadline)
            while time.monotonic() < until:
                time.sleep(0.2)
                disturbed.keep_marks()
                whole.keep_marks()
            how = rng.choice(SIGNALS)
            code = disturbed.end(how)
            ends[how.name] += 1
            assert code == (-signal.SIGKILL if how == signal.SIGKILL else ExitCode.PREEMPTED) or early(
                disturbed, code, how
            )
    finally:
        for one in (disturbed, whole):
            one.keep_marks()
            if one.process is not None and one.process.poll() is None:
                one.process.kill()
                one.process.wait()
    both = sorted({path.name for path in disturbed.marks.iterdir()} & {path.name for path in whole.marks.iterdir()})
    print(f"{minutes:g} minutes, ended by {dict(ends)}; equal at {len(both)} steps, the last {both[-1:]}")
    assert len(both) >= 2
    for name in both:
        same(*(torch.load(one.marks / name, weights_only=True) for one in (disturbed, whole)))


def early(training: Training, code: int, how: signal.Signals) -> bool:
    """Whether a signal came while Python was still importing, before anything listens: it ends the process plainly."""
    said = training.log.read_bytes().splitlines()[-1:]
    return code == -how and not any(b"goes on from" in line for line in said)
