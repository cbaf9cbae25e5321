"""Runs of a study in several processes: each is done once, one that dies takes no other along, and all end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fmct.cli import main
from fmct.console.quietly import Outcome, PreemptedError
from fmct.experiment.side_by_side import environment, side_by_side

pytestmark = pytest.mark.usefixtures("one_thread")
SECONDS_FOR_PROCESSES = 60


@dataclass(frozen=True)
class Told:
    """A run that does as it is told, and writes down by whom and with how many threads."""

    folder: Path
    does: str = "ends"

    def run(self) -> Outcome:
        if self.does == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.does == "is asked to end":
            raise PreemptedError("asked", "a run", "run it again")
        if self.does == "fails":
            return Outcome(1, "as told")
        self.folder.write_text(f"{os.getpid()} {torch.get_num_threads()}")
        while self.does == "goes on":
            time.sleep(0.01)
        return Outcome(0)


def outcomes(runs: list[Any], jobs: int, begun: list[Any] | None = None) -> dict[Path, Outcome]:
    return {
        one.folder: outcome for one, outcome in side_by_side(runs, jobs, (begun if begun is not None else []).append)
    }


def test_every_run_is_done_once_and_one_that_dies_takes_no_other_along(tmp_path: Path) -> None:
    good = [Told(tmp_path / str(number)) for number in range(6)]
    runs = [Told(tmp_path / "dead", "dies"), *good[:2], Told(tmp_path / "bad", "fails"), *good[2:]]
    begun: list[Any] = []
    found = outcomes(runs, 2, begun)
    assert begun == runs
    assert {one.folder: found[one.folder] for one in good} == {one.folder: Outcome(0) for one in good}
    who = [one.folder.read_text().split() for one in good]
    assert len({process for process, _ in who}) <= 2 + 1
    assert str(os.getpid()) not in {process for process, _ in who}
    assert {threads for _, threads in who} == {"1"}
    assert "was killed by SIGKILL" in found[tmp_path / "dead"].error
    assert "--jobs" in found[tmp_path / "dead"].error
    assert found[tmp_path / "bad"] == Outcome(1, "as told")


def test_a_run_that_is_asked_to_end_ends_all(tmp_path: Path) -> None:
    runs = [Told(tmp_path / "long", "goes on"), Told(tmp_path / "asked", "is asked to end"), Told(tmp_path / "never")]
    with pytest.raises(PreemptedError):
        outcomes(runs, 2)
    assert not (tmp_path / "never").exists()
    if (tmp_path / "long").exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "long").read_text().split()[0]), 0)


def test_a_study_that_is_asked_to_end_takes_its_processes_along(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from test_side_by_side import Told, outcomes; from fmct.console.command import exit_code\n"
        "runs = [Told(Path(sys.argv[2]) / str(number), 'goes on') for number in range(3)]\n"
        "if __name__ == '__main__': sys.exit(exit_code(lambda: outcomes(runs, 2) and 0, debug=False))\n"
    )
    (tmp_path / "study.py").write_text(script)
    command = [sys.executable, str(tmp_path / "study.py"), str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as study:
        until = time.monotonic() + SECONDS_FOR_PROCESSES
        while not all((tmp_path / name).exists() for name in "01") and time.monotonic() < until:
            time.sleep(0.05)
        study.terminate()
        _, said = study.communicate(timeout=SECONDS_FOR_PROCESSES)
    assert study.returncode == 75, said
    assert said.splitlines()[0] == "error: the runs were asked to end; what they did is saved"
    assert not (tmp_path / "2").exists()
    for name in "01":
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / name).read_text().split()[0]), 0)


def test_each_process_has_its_share_of_threads_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert environment(0, 2) == {"OMP_NUM_THREADS": "3"}
    assert environment(0, 16) == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [environment(number, 3)["CUDA_VISIBLE_DEVICES"] for number in range(3)] == ["4", "6", "4"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [environment(number, 3)["CUDA_VISIBLE_DEVICES"] for number in range(3)] == ["0", "1", "0"]


def test_jobs_are_nothing_that_slurm_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(tmp_path / "s.yaml"), "--jobs", "2", "--slurm", "walltime=1:00:00"]) == 2
    assert "--jobs and --slurm exclude each other" in capsys.readouterr().err
