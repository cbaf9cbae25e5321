"""A run of several processes says once why it ends, whoever of them knows it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_cohort

from fmct.data.volumes import VolumeCache
from fmct.experiment.speaking import first_to_speak

SMOKE = Path(__file__).resolve().parent.parent / "experiments" / "pretrain_mae_smoke.yaml"

ONE_FAILS = """
import sys
import torch
import torch.distributed as dist
from fmct.console.command import exit_code
from fmct.console.errors import FmctError
from fmct.console.leaving import leave
from fmct.experiment.speaking import first_to_speak

rank, port, failing = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)

def work():
    dist.barrier()  # which the other one may still be in when this one has failed
    if rank == failing:
        raise FmctError("the disk is full", "runs/x", "free some space")
    dist.all_reduce(torch.zeros(1))  # of which the other one will never hear

leave(exit_code(work, debug=False, speaks=first_to_speak))
"""


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.parametrize("failing", [0, 1])
def test_what_follows_from_one_process_error_is_not_printed(failing: int) -> None:
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_FAILS, str(rank), port, str(failing)], stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert said[failing].splitlines()[-3:] == [
        "error: the disk is full", "  in runs/x", "  Fix: free some space",
    ]  # fmt: skip
    assert "Traceback" not in "".join(said)
    assert "error:" not in said[1 - failing]


def test_a_run_in_two_processes_says_once_why_it_ends(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "cohort")
    VolumeCache.open(cohort.cache).volume_path("scan003").write_bytes(b"no volume")
    flags = [
        "--data.manifest", cohort.manifest, "--data.cache", cohort.cache, "--trainer.runs", tmp_path / "runs",
        "--input.voxels", "24", "--data.batch_size", "3", "--data.val_splits", "[]",
        "--trainer.devices", "2", "--trainer.strategy", "ddp",
    ]  # fmt: skip
    command = [sys.executable, "-m", "fmct.fit", "--config", str(SMOKE), *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    told = [number for number, line in enumerate(lines) if line.startswith("error: scan scan003 can't be read")]
    assert len(told) == 1, done.stderr
    assert lines[told[0] + 1].startswith("  in ")
    assert lines[told[0] + 2].startswith("  Fix: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("environment", "speaks"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1"}, True),  # started by Lightning, after process 0 had come so far
        ({"TORCHELASTIC_RUN_ID": "a", "LOCAL_RANK": "0"}, True),
        ({"TORCHELASTIC_RUN_ID": "a", "LOCAL_RANK": "1"}, False),
        ({"SLURM_STEP_ID": "0", "SLURM_LOCALID": "3"}, False),
        ({"SLURM_STEP_ID": "0", "SLURM_LOCALID": "0"}, True),
    ],
)
def test_before_they_are_connected_one_process_of_a_machine_speaks(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], speaks: bool
) -> None:
    for name in ("LOCAL_RANK", "TORCHELASTIC_RUN_ID", "SLURM_STEP_ID", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    waited: list[float] = []
    monkeypatch.setattr("fmct.experiment.speaking.time.sleep", waited.append)
    assert first_to_speak() == speaks
    assert bool(waited) == (not speaks)  # for what started them ends all when one has ended
