"""`fmct submit`: the batch file, what SLURM refuses, and a job that is stopped, requeued and ends as if it were not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_slurm
import pandas as pd
import pytest
from conftest import REPOSITORY, TIMED, TinyCohort
from test_resume import Case, arguments

from fmct.cli import main
from fmct.experiment.slurm_jobs import Job, job_script
from fmct.fit import main as fit

ASKED = "partition=gpu,gpus=4,cores=6,walltime=12:00:00,account=lab,memory=200GB"
SMOKE = str(REPOSITORY / "experiments" / "pretrain_mae_smoke.yaml")
OVERLAY = str(REPOSITORY / "experiments" / "overlays" / "slurm.yaml")


def with_jobs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{fake_slurm.install_jobs(folder)}{os.pathsep}{os.environ['PATH']}")
    return folder / "slurm_state"


def test_a_job_asks_for_what_the_run_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["submit", "--config", SMOKE, "--config", OVERLAY, "--trainer.runs", str(tmp_path / "runs")]
    assert main([*command, "--nodes", "2", "--slurm", ASKED, "--optimizer.lr", "1e-4", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {
        "#SBATCH --job-name=pretrain_mae_smoke", "#SBATCH --requeue", "#SBATCH --open-mode=append",
        "#SBATCH --signal=USR1@300", "#SBATCH --time=12:00:00", "#SBATCH --nodes=2", "#SBATCH --ntasks=8",
        "#SBATCH --cpus-per-task=6", "#SBATCH --gpus-per-node=4", "#SBATCH --mem=200GB", "#SBATCH --partition=gpu",
        f"#SBATCH --output={tmp_path / 'runs' / 'slurm' / 'pretrain_mae_smoke-%j.log'}",
    } <= set(lines)  # fmt: skip
    assert lines[-1] == (
        f"train fit --config {SMOKE} --config {OVERLAY} --trainer.nodes 2 --trainer.devices 4 --trainer.strategy ddp "
        f"--trainer.runs {tmp_path / 'runs'} --optimizer.lr 1e-4"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "--slurm is missing"),
        (["--slurm", "walltim=1"], "did you mean 'walltime'?"),
        (["--slurm", "walltime=1:00:00,tasks=3", "--nodes", "2"], "3 tasks can't be divided among 2 nodes"),
        (["--slurm", "walltime=1:00:00", "--optimizer.lrr", "1"], "did you mean --optimizer.lr?"),
        (["--slurm", "walltime=1:00:00"], "there is no `sbatch` here"),
    ],
)
def test_what_cannot_be_submitted_is_three_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["submit", "--config", SMOKE, "--trainer.runs", str(tmp_path), *more]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 3


@pytest.mark.parametrize(("code", "requeued", "ends"), [(75, True, 75), (3, False, 0), (1, False, 1), (0, False, 0)])
def test_a_job_is_requeued_when_its_run_was_stopped_and_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, requeued: bool, ends: int
) -> None:
    state = with_jobs(tmp_path, monkeypatch)
    stub = tmp_path / "python"
    stub.write_text(f'#!/bin/sh\necho "$*" >> {state}/ran\n[ $(wc -l < {state}/ran) -gt 1 ] && exit 0\nexit {code}\n')
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (state / "7.sh").write_text("true")
    script = job_script("x", ["fit"], Job(walltime="1"), tmp_path / "log")
    ended = subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True)
    assert ended.returncode == ends, ended.stderr
    assert (state / "ran").read_text() == "-m fmct.cli fit\n"
    assert (state / "scontrol").exists() == requeued
    if requeued:
        assert (state / "scontrol").read_text() == "requeue 7\n"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")  # as the job has: more threads add up in another order
def test_a_job_that_slurm_stops_goes_on_and_ends_as_if_it_had_not(
    tiny: TinyCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case("mae", workers=1, every=0, killed_at=0, goes_on_from=0)
    flags = [*arguments(tiny, tmp_path, case), "--trainer.max_steps", "60", "--trainer.max_epochs", "10"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    state, run = with_jobs(tmp_path, monkeypatch), tmp_path / case.folder / case.experiment
    assert main(["submit", *flags, "--slurm", "walltime=01:00:00", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["job"], said["processes"]) == ("7", 1)
    deadline = time.monotonic() + 240

    def wait_for(path: Path) -> None:
        while not path.exists():
            assert time.monotonic() < deadline, Path(said["log"]).read_text()
            time.sleep(0.01)

    wait_for(run / "checkpoints" / "last.ckpt")  # the first epoch is over
    os.kill(int((state / "srun.pid").read_text()), signal.SIGUSR1)
    wait_for(state / "scontrol")
    assert (state / "scontrol").read_text() == "requeue 7\n"
    wait_for(run / "environment.json")
    assert "SIGUSR1: the run ends after this step" in Path(said["log"]).read_text()
    assert len(json.loads((run / "history.json").read_text())) == 2
    whole = [*flags, "--trainer.runs", str(tmp_path / "whole")]
    assert fit(whole) == 0
    folders = [run, tmp_path / "whole" / case.experiment]
    tables = [pd.read_csv(folder / "metrics.csv").drop(columns=TIMED) for folder in folders]
    pd.testing.assert_frame_equal(*tables)
