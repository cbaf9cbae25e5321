"""One run at a time in a folder: who is refused, who takes over from whom, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import TinyCohort

from fmct.console import occupied as module
from fmct.console.errors import UsageError
from fmct.console.occupied import claim_of, facts, occupied
from fmct.fit import main as fit

HOLDING = """
import sys, time
from pathlib import Path
from fmct.console.occupied import occupied
with occupied(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats and watching in tenths of seconds."""
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    monkeypatch.setattr(module, "WATCHED_S", 0.5)


def holding(folder: Path) -> subprocess.Popen[str]:
    """Start a process that is at work in a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDING, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def claim(folder: Path, **values: object) -> Path:
    """Write the claim of another process."""
    path = claim_of(folder)
    path.write_text(json.dumps({"host": "node7", "pid": 7, "since": "yesterday"} | facts() | values))
    return path


def test_a_second_run_is_refused_and_a_killed_one_gives_way(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    with holding(folder) as other:
        with pytest.raises(UsageError, match=f"another run is at work there: process {other.pid}"), occupied(folder):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert claim_of(folder).exists()
    with occupied(folder):
        assert json.loads(claim_of(folder).read_text())["pid"] == os.getpid()
    assert not claim_of(folder).exists()


def test_a_run_that_comes_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    with occupied(tmp_path / "runs" / "one"):
        pass
    assert not (tmp_path / "runs").exists()
    with occupied(tmp_path / "runs" / "one"):
        (tmp_path / "runs" / "one").mkdir()
    assert (tmp_path / "runs" / "one").is_dir()


@pytest.mark.usefixtures("hasty")
def test_another_machines_run_is_refused_while_it_renews_its_claim(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, done = claim(tmp_path / "one", machine="elsewhere"), threading.Event()

    def renew() -> None:
        while not done.wait(0.05):
            os.utime(path)

    other = threading.Thread(target=renew)
    other.start()
    try:
        with pytest.raises(UsageError, match="process 7 on node7, since yesterday"), occupied(tmp_path / "one"):
            pass
    finally:
        done.set()
        other.join()
    assert "watching for" in capsys.readouterr().err
    with occupied(tmp_path / "one"):  # not renewed any more
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_requeued_job_goes_on_at_once_and_another_task_of_an_array_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "81")
    monkeypatch.setattr(module, "is_renewed", lambda path: True)
    claim(tmp_path / "one", machine="elsewhere")
    with occupied(tmp_path / "one"):
        pass
    claim(tmp_path / "one", machine="elsewhere", task="3")
    with pytest.raises(UsageError, match="another run"), occupied(tmp_path / "one"):
        pass


def test_two_processes_of_one_slurm_job_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "81")
    with holding(tmp_path / "one") as other:
        try:
            with pytest.raises(UsageError, match=f"process {other.pid}"), occupied(tmp_path / "one"):
                pass
        finally:
            other.kill()


def test_a_later_process_of_the_same_number_is_another(tmp_path: Path) -> None:
    claim(tmp_path / "one", pid=os.getpid(), started=1.0)
    with occupied(tmp_path / "one"):
        pass


@pytest.mark.usefixtures("hasty")
def test_who_lost_the_folder_is_asked_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        with occupied(tmp_path / "one"):
            claim(tmp_path / "one", machine="elsewhere")
            deadline = time.monotonic() + 10
            while not asked.is_set() and time.monotonic() < deadline:
                time.sleep(0.01)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert asked.is_set()
    assert "has taken over" in capsys.readouterr().err
    assert claim_of(tmp_path / "one").exists(), "the other's claim stays"


def test_two_jobs_in_one_run_folder(tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pretrain_mae_smoke"
    experiments = Path(__file__).resolve().parent.parent / "experiments"
    command = ["--config", str(experiments / "pretrain_mae_smoke.yaml"), "--trainer.runs", str(tmp_path)]
    command += ["--data.manifest", str(tiny.manifest), "--data.cache", str(tiny.cache), "--input.voxels", "24"]
    with holding(folder) as other:
        try:
            assert fit([*command, "--fresh"]) == 2
        finally:
            other.kill()
    error = capsys.readouterr().err
    assert "another run is at work there" in error
    assert len(error.strip().splitlines()) == 3
    assert not folder.exists()
