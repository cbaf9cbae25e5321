"""A run that is asked to end, by a signal, finishes its step, saves, and goes on as if nothing had been."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import TIMED, TinyCohort
from test_resume import Case, arguments

from fmct.callbacks.preemption import Asked
from fmct.fit import main

pytestmark = pytest.mark.usefixtures("one_thread")
FAULTY_RUNS = Path(__file__).resolve().parent / "faulty_runs.py"
PLAIN = Case("mae", 0, 0, 0, 0)
NEVER = ("--trainer.checkpoint_every_epochs", "99")


@dataclass(frozen=True)
class Asking:
    """A signal in the middle of a step, and the step that the run goes on from."""

    fault: str
    at: int
    goes_on_from: int | None
    code: int = 75
    workers: int = 0
    more: tuple[str, ...] = NEVER


ASKINGS = {
    "sigterm": Asking("SIGTERM", at=4, goes_on_from=5, workers=2),
    "sigusr1": Asking("SIGUSR1", at=11, goes_on_from=12, workers=1),  # in the last step of an epoch
    "sigint": Asking("SIGINT", at=7, goes_on_from=8),
    "twice": Asking("SIGINT twice", at=3, goes_on_from=None, code=-signal.SIGINT),
    "unsaved": Asking("SIGTERM", at=3, goes_on_from=None, more=("--trainer.checkpoints", "false")),
}


def flags_of(name: str, cohort: TinyCohort, folder: Path) -> list[str]:
    asking = ASKINGS[name]
    flags = arguments(cohort, folder / name, PLAIN)
    flags[flags.index("--data.workers") + 1] = str(asking.workers)
    return [*flags, *asking.more]


def run_jobs(folder: Path, jobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Run jobs of `faulty_runs.py`; return their outcomes, with what each printed."""
    for job in jobs:
        job["printed"] = str(folder / job["name"])
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, str(FAULTY_RUNS), str(folder / "jobs.json"), str(folder / "outcomes.json")]
    subprocess.run(command, check=True, timeout=400)
    outcomes: dict[str, Any] = json.loads((folder / "outcomes.json").read_text())
    for name, found in outcomes.items():
        found["out"], found["err"] = ((folder / f"{name}{suffix}").read_text() for suffix in (".out", ".err"))
    return outcomes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("asked")


@pytest.fixture(scope="module")
def outcomes(tiny: TinyCohort, folder: Path) -> dict[str, Any]:
    """How each run ended that was asked to."""
    jobs = [
        {"name": name, "flags": flags_of(name, tiny, folder), "fault": one.fault, "at": one.at, "processes": 1}
        for name, one in ASKINGS.items()
    ]
    return run_jobs(folder, jobs)


@pytest.fixture(scope="module")
def whole(tiny: TinyCohort, folder: Path) -> Path:
    """A run that nobody asked anything."""
    assert main(arguments(tiny, folder / "whole", PLAIN)) == 0
    return folder / "whole" / PLAIN.folder / PLAIN.experiment


@pytest.mark.parametrize("name", ASKINGS)
def test_sigterm_usr1_and_ctrl_c(
    name: str, outcomes: dict[str, Any], whole: Path, tiny: TinyCohort, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking, ended = ASKINGS[name], outcomes[name]
    run = folder / name / PLAIN.folder / PLAIN.experiment
    assert ended["codes"] == [asking.code], ended["err"]
    assert "Traceback" not in ended["err"]
    number = asking.fault.split()[0]
    assert ended["err"].startswith(f"{number}: the run ends after this step")
    last = run / "checkpoints" / "last.ckpt"
    if asking.goes_on_from is None:
        assert not last.exists()
        assert ("nothing is saved" in ended["out"]) == (asking.code == 75)
        return
    saved = f"step{asking.goes_on_from:07d}.ckpt"
    assert last.readlink() == Path(saved)
    expected = f"ended by {number} after step {asking.goes_on_from}, saved as {last.with_name(saved)}"
    assert f"{expected}; the same command goes on" in ended["out"]
    assert not (run / "weights").exists()
    assert main(flags_of(name, tiny, folder)) == 0
    tables = [pd.read_csv(path / "metrics.csv").drop(columns=TIMED) for path in (run, whole)]
    pd.testing.assert_frame_equal(*tables)
    weights = [(path / "weights" / "model.safetensors").read_bytes() for path in (run, whole)]
    assert weights[0] == weights[1]
    history = json.loads((run / "history.json").read_text())
    assert [part["goes_on_from"] for part in history] == [None, saved]


def test_checkpoints_by_the_hour(tiny: TinyCohort, tmp_path: Path) -> None:
    flags = [*arguments(tiny, tmp_path, PLAIN), *NEVER, "--trainer.max_steps", "4", "--trainer.checkpoint_keep", "9"]
    assert main([*flags, "--trainer.checkpoint_every_hours", "1e-9"]) == 0
    folder = tmp_path / PLAIN.folder / PLAIN.experiment / "checkpoints"
    assert len(list(folder.glob("step*.ckpt"))) == 4
    assert main([*flags, "--trainer.checkpoint_every_hours", "9", "--fresh"]) == 0
    assert [path.name for path in folder.glob("step*.ckpt")] == ["step0000004.ckpt"]


def test_signals_are_given_back() -> None:
    from fmct.callbacks.preemption import listening

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with listening() as asked:
        assert isinstance(asked, Asked)
        signal.raise_signal(signal.SIGUSR1)
        assert asked.signal == signal.SIGUSR1
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before
