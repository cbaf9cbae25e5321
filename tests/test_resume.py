"""A run that is killed and started again ends as it would have: same scans, same weights, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from conftest import TIMED, TinyCohort
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmct.callbacks.nan_guard import NanGuard
from fmct.experiment.loading import as_record, completed, load_experiment
from fmct.fit import main

pytestmark = pytest.mark.usefixtures("one_thread")
EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
KILLED_RUNS = Path(__file__).resolve().parent / "killed_runs.py"
STEPS_PER_EPOCH, STEPS = 6, 16


@dataclass(frozen=True)
class Case:
    """A run that saves every so many steps, is killed at one, and should go on from another."""

    task: str
    workers: int
    every: int
    killed_at: int
    goes_on_from: int

    @property
    def folder(self) -> str:
        return f"{self.task}-{self.workers}-{self.killed_at}"

    @property
    def experiment(self) -> str:
        return {"mae": "pretrain_mae_smoke", "attentive": "classify_smoke"}.get(self.task, "pretrain_dino_smoke")


CASES = [
    Case("mae", workers=0, every=4, killed_at=10, goes_on_from=8),  # in the second epoch
    Case("mae", workers=2, every=4, killed_at=5, goes_on_from=4),  # in the first
    Case("mae", workers=0, every=4, killed_at=8, goes_on_from=6),  # step 8 is saved, its metrics aren't: the one before
    Case("mae", workers=2, every=6, killed_at=13, goes_on_from=12),  # at the end of an epoch
    Case("dino", workers=0, every=4, killed_at=5, goes_on_from=4),
    Case("dino", workers=2, every=5, killed_at=11, goes_on_from=10),
    Case("dinov2", workers=0, every=4, killed_at=9, goes_on_from=8),
    Case("joint", workers=0, every=5, killed_at=11, goes_on_from=10),
    Case("attentive", workers=0, every=4, killed_at=9, goes_on_from=8),
]
DINO = ("--task.local_voxels", "16", "--optimizer.weight_decay_end", "0.4", "--task.teacher_warmup_epochs", "2")
KEYS = {
    "mae": ("--task.mask_ratio", "0.5"),
    "dino": DINO,
    "dinov2": (
        *(*DINO, "--task.ibot.weight", "1", "--task.ibot.foreground", "true", "--task.ibot.mask_probability", "0.9"),
        *("--task.ibot.head.hidden", "24", "--task.ibot.head.bottleneck", "8", "--task.ibot.head.prototypes", "32"),
        *("--task.koleo_weight", "0.1", "--task.loss_chunk_rows", "3"),
    ),
    "attentive": (
        *("--task.mode", "attentive", "--task.weights", "null", "--task.views", "whole", "--data.val_splits", "[]"),
        *("--task.head", '{"heads": 4, "mirror": true}', "--task.crops.flip_probability", "0.5"),
    ),
    "joint": (
        *(*DINO, "--task.mae_weight", "1", "--task.mae.foreground", "true", "--task.mae.masking.kind", "block"),
        *("--task.mae.decoder.width", "24", "--task.mae.decoder.heads", "2", "--task.centering", "sinkhorn"),
    ),
}


def arguments(cohort: TinyCohort, runs: Path, case: Case) -> list[str]:
    return [
        *("--config", str(EXPERIMENTS / f"{case.experiment}.yaml"), "--trainer.runs", str(runs / case.folder)),
        *("--data.manifest", str(cohort.manifest), "--data.cache", str(cohort.cache), "--input.voxels", "24"),
        *("--data.batch_size", "2", "--data.workers", str(case.workers), "--backbone.drop_path", "0.2"),
        *("--trainer.max_epochs", "3", "--trainer.max_steps", str(STEPS), "--trainer.clip_norm", "1.0"),
        *("--trainer.checkpoint_every_steps", str(case.every), *KEYS[case.task]),
    ]


def run_recorded(monkeypatch: pytest.MonkeyPatch, flags: list[str]) -> list[tuple[int, list[str]]]:
    """Run to the end; return the steps made and the scans of each."""
    seen: list[tuple[int, list[str]]] = []
    before = NanGuard.on_train_batch_start

    def record(guard: NanGuard, trainer: Any, module: Any, batch: Any, number: int) -> None:
        seen.append((trainer.global_step, list(batch["scan_id"])))
        before(guard, trainer, module, batch, number)

    with monkeypatch.context() as patch:
        patch.setattr(NanGuard, "on_train_batch_start", record)
        assert main(flags) == 0
    return seen


@pytest.fixture(scope="module")
def killed(tiny: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs, each killed at its step."""
    runs = tmp_path_factory.mktemp("killed")
    jobs = [(case.killed_at, arguments(tiny, runs, case)) for case in CASES]
    subprocess.run([sys.executable, str(KILLED_RUNS), json.dumps(jobs)], check=True, timeout=240)
    return runs


@pytest.fixture(scope="module")
def whole(tiny: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """For each task, a run that nobody killed: its folder and what it saw."""
    runs = tmp_path_factory.mktemp("whole")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for task in KEYS:
            case = Case(task, 0, 0, 0, 0)
            found[task] = (
                runs / case.folder / case.experiment,
                run_recorded(patch, arguments(tiny, runs, case)),
            )
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.folder)
def test_killed_and_resumed_equals_uninterrupted(
    case: Case, killed: Path, whole: dict[str, Any], tiny: TinyCohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = killed / case.folder / case.experiment
    last = folder / "checkpoints" / "last.ckpt"
    assert last.readlink() == Path(f"step{case.goes_on_from:07d}.ckpt")
    other, expected = whole[case.task]
    assert len(expected) == STEPS
    assert run_recorded(monkeypatch, arguments(tiny, killed, case)) == expected[case.goes_on_from :]
    same(*(torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (folder, other)))
    metrics = [pd.read_csv(path / "metrics.csv").drop(columns=TIMED) for path in (folder, other)]
    pd.testing.assert_frame_equal(*metrics)
    assert metrics[0]["step"].tolist() == list(range(STEPS))
    events = EventAccumulator(str(folder / "tb"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(STEPS))
    kept = sorted(path.name for path in last.parent.glob("step*.ckpt"))
    assert (len(kept), kept[-1]) == (2, f"step{STEPS:07d}.ckpt")
    assert len(list(last.parent.iterdir())) == 5, "two checkpoints, their checksums, and the link to the last"
    weights = [(path / "weights" / "model.safetensors").read_bytes() for path in (folder, other)]
    assert weights[0] == weights[1]


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Compare weights, teacher, center, optimizer and schedule bit for bit."""
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        values = [dict(leaves(checkpoint[part], part)) for checkpoint in (ours, theirs)]
        assert values[0].keys() == values[1].keys()
        for name, value in values[0].items():
            other = values[1][name]
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name


def leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield what a nested state holds, each with its name."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, f"{name}.{key}")
    else:
        yield name, value


def test_runs_older_than_a_key_go_on(tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = Case("mae", 0, 0, 0, 0)
    flags = arguments(tiny, tmp_path, case)
    flags[flags.index(str(STEPS))] = "2"
    assert main(flags) == 0
    file = tmp_path / case.folder / "pretrain_mae_smoke" / "experiment.yaml"
    record = yaml.safe_load(file.read_text())
    for section, key in (("data", "sampling"), ("data", "max_bad_scans"), ("trainer", "checkpoint_every_steps")):
        del record[section][key]
    file.write_text(yaml.safe_dump(record))
    assert main(flags) == 0
    assert "finished already" in capsys.readouterr().out
    assert main([*flags, "--data.max_bad_scans", "1"]) == 2
    assert "data.max_bad_scans: 0 -> 1" in capsys.readouterr().err


def test_the_environment_adds_nothing_to_an_older_record(monkeypatch: pytest.MonkeyPatch) -> None:
    record = as_record(load_experiment([EXPERIMENTS / "pretrain_mae_smoke.yaml"]))
    older = record | {"data": {key: value for key, value in record["data"].items() if key != "prefetch_batches"}}
    monkeypatch.setenv("FMCT_DATA__PREFETCH_BATCHES", "9")
    assert completed(older) == record
    assert completed(older | {"gone": 1}) == older | {"gone": 1}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["mae", "dino"])
def test_two_processes_go_on_where_they_were_killed(tiny: TinyCohort, tmp_path: Path, task: str) -> None:
    def command(name: str) -> list[str]:
        flags = arguments(tiny, tmp_path / name, Case(task, workers=1, every=2, killed_at=0, goes_on_from=0))
        flags[flags.index(str(STEPS))] = "12"
        flags[flags.index("--trainer.max_epochs") + 1] = "4"
        return [sys.executable, "-m", "fmct.fit", *flags, "--trainer.devices", "2", "--trainer.strategy", "ddp"]

    folders = {name: tmp_path / name / f"{task}-1-0" / f"pretrain_{task}_smoke" for name in ("whole", "cut")}
    subprocess.run(command("whole"), check=True, timeout=300)
    process = subprocess.Popen(command("cut"), start_new_session=True)
    last = folders["cut"] / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 300
    while not (last.is_symlink() and int(last.readlink().stem[4:]) >= 4):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folders["cut"] / "weights").exists()
    subprocess.run(command("cut"), check=True, timeout=300)
    same(*(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in folders.values()))
    weights = [(folder / "weights" / "model.safetensors").read_bytes() for folder in folders.values()]
    assert weights[0] == weights[1]
