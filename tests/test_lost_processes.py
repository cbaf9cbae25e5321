"""One of two processes raises, dies, hangs or is asked to end: both end in time, and say why, once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import TinyCohort
from test_preemption import run_jobs
from test_resume import Case, arguments

PLAIN = Case("mae", 0, 0, 0, 0)
TIMEOUT_S = 6
SECONDS_TO_END = TIMEOUT_S + 60
"""What both processes take at most, on a busy machine: starting and the steps before the fault among them."""
FAULTS = {"raises": "raises", "dies": "dies", "hangs": "hangs", "asked": "SIGTERM to one"}
EXPERIMENT = Path(PLAIN.folder) / PLAIN.experiment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lost")


@pytest.fixture(scope="module")
def outcomes(tiny: TinyCohort, folder: Path) -> dict[str, Any]:
    """How each pair ended, of which process 1 met a fault in step 3."""
    more = ["--trainer.strategy", "ddp", "--trainer.timeout_s", str(TIMEOUT_S), "--trainer.max_steps", "9"]
    jobs = [
        {"name": n, "flags": [*arguments(tiny, folder / n, PLAIN), *more], "fault": f, "at": 2, "of": 1, "processes": 2}
        for n, f in FAULTS.items()
    ]
    return run_jobs(folder, jobs)


@pytest.mark.parametrize("name", ["raises", "dies", "hangs"])
def test_rank_dies(outcomes: dict[str, Any], name: str) -> None:
    ended = outcomes[name]
    first, second = ended["codes"]
    assert first == 1
    assert second == {"raises": 1, "dies": -9, "hangs": -9}[name]
    assert ended["seconds"] < SECONDS_TO_END
    if name == "raises":
        assert ended["err"].count("ZeroDivisionError: division by zero") == 1
        assert "error:" not in ended["err"]
        return
    errors = [line for line in ended["err"].splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended["err"]
    assert errors[0] == "error: process 1 of 2 processes ended or hangs, in step 2"
    assert "Traceback" not in ended["err"]
    assert f"waited at most {TIMEOUT_S} s for it (trainer.timeout_s)" in ended["err"]


def test_one_process_is_asked_and_both_end_after_the_same_step(outcomes: dict[str, Any], folder: Path) -> None:
    ended = outcomes["asked"]
    assert ended["codes"] == [75, 0], ended["err"]  # the first says how the run ended
    assert "ended by SIGTERM after step 3" in ended["out"]
    assert ended["out"].count("ended by") == 1
    checkpoints = folder / "asked" / EXPERIMENT / "checkpoints"
    assert (checkpoints / "last.ckpt").readlink() == Path("step0000003.ckpt")


WAITING_FOR_A_CHILD = """
import subprocess, sys, time
from fmct.callbacks import children
children.SECONDS_OF_GRACE = 0.2
pair = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) for _ in range(2)]
print(pair[1].pid, flush=True)
children.ChildWatch(pair).start()
pair[0].kill()
time.sleep(300)
"""


def test_a_process_whose_child_was_killed_says_so_and_takes_the_others_along() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WAITING_FOR_A_CHILD], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: process 1 (pid ")
    assert "was killed by SIGKILL" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not Path(f"/proc/{int(ended.stdout)}").exists()
