"""Training through the real entry point: all tasks, resume, two processes, what a run leaves behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import TinyCohort, make_cohort
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmct.experiment.loading import load_experiment
from fmct.fit import fit, main

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
OVERLAY = EXPERIMENTS / "overlays" / "smoke.yaml"


def flags(cohort: TinyCohort, runs: Path, *more: str) -> list[str]:
    return [
        *("--data.manifest", str(cohort.manifest), "--data.cache", str(cohort.cache), "--trainer.runs", str(runs)),
        *("--input.voxels", "24"),
        *more,
    ]


def run(name: str, cohort: TinyCohort, runs: Path, *more: str) -> Path:
    experiment = load_experiment([EXPERIMENTS / f"{name}.yaml"], flags(cohort, runs, *more))
    return fit(experiment)


DINO = ("--task.local_voxels", "16")


@pytest.fixture(scope="module")
def runs(tiny: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of each task."""
    folder = tmp_path_factory.mktemp("runs")
    run("pretrain_mae_smoke", tiny, folder)
    run("pretrain_dino_smoke", tiny, folder, *DINO)
    weights = str(folder / "pretrain_mae_smoke" / "weights")
    run("classify_smoke", tiny, folder, "--task.weights", weights, "--trainer.max_epochs", "12")
    return folder


@pytest.mark.parametrize("name", ["pretrain_mae_smoke", "pretrain_dino_smoke", "classify_smoke"])
def test_a_run_leaves_everything_there_is_to_know(runs: Path, name: str) -> None:
    folder = runs / name
    record = yaml.safe_load((folder / "experiment.yaml").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    assert record["name"] == name
    assert environment["finished"] is True
    assert environment["packages"]["torch"] == torch.__version__
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["train/loss"].notna().sum() == environment["steps"]
    assert metrics["train/lr"].max() > 0
    assert (metrics["train/scans_per_second"].dropna() > 0).all()
    assert {p.name for p in (folder / "weights").iterdir()} == {
        *("model.safetensors", "config.json", "MODEL_CARD.md", "SHA256SUMS")
    }
    assert (folder / "checkpoints" / "last.ckpt").exists()


def test_checkpoints_load_safely_and_hold_plain_values(runs: Path) -> None:
    checkpoint = torch.load(runs / "pretrain_dino_smoke" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["experiment"]["task"]["kind"] == "dino"
    assert "loss.center" in checkpoint["state_dict"]


def test_tensorboard_has_loss_rate_throughput_and_pictures(runs: Path) -> None:
    events = EventAccumulator(str(runs / "pretrain_mae_smoke" / "tb"))
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "train/lr", "train/scans_per_second", "val/loss"} <= set(tags["scalars"])
    assert "reconstruction" in tags["images"]
    pictures = sorted((runs / "pretrain_mae_smoke" / "pictures").glob("reconstruction_step*.png"))
    picture = np.asarray(Image.open(pictures[-1]))
    assert picture.shape == (3 * 24, 3 * 3 * 24)
    assert picture[:24].max() > 100  # the first row shows the heads
    assert list((runs / "pretrain_dino_smoke" / "pictures").glob("views_step*.png"))


def test_learning_lowers_the_loss(runs: Path) -> None:
    loss = pd.read_csv(runs / "classify_smoke" / "metrics.csv")["train/loss"].dropna()
    assert loss.iloc[-3:].mean() < loss.iloc[:3].mean()


def test_same_seed_same_weights_whatever_the_number_of_workers(tiny: TinyCohort, tmp_path: Path) -> None:
    steps = ("--trainer.max_steps", "3")
    a = run("pretrain_mae_smoke", tiny, tmp_path / "a", *steps)
    b = run("pretrain_mae_smoke", tiny, tmp_path / "b", *steps, "--data.workers", "2")
    c = run("pretrain_mae_smoke", tiny, tmp_path / "c", *steps, "--seed", "43")
    weights = [load_file(folder / "weights" / "model.safetensors") for folder in (a, b, c)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


@pytest.mark.parametrize("name", ["pretrain_mae_smoke", "pretrain_dino_smoke", "pretrain_anomaly_smoke"])
def test_interrupted_and_resumed_equals_uninterrupted(
    tiny: TinyCohort, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = DINO if "dino" in name else ()
    whole = run(name, tiny, tmp_path / "whole", *more)

    class PowerCutError(Exception):
        pass

    def fail(self: Any, *_: Any) -> None:
        if self.current_epoch == 2:
            raise PowerCutError

    monkeypatch.setattr("fmct.tasks.base.Task.on_train_epoch_start", fail, raising=False)
    with pytest.raises(PowerCutError):
        run(name, tiny, tmp_path / "cut", *more)
    monkeypatch.undo()
    cut = run(name, tiny, tmp_path / "cut", *more)
    ours, theirs = (load_file(folder / "weights" / "model.safetensors") for folder in (cut, whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    losses = [pd.read_csv(folder / "metrics.csv")["train/loss"].dropna().tolist() for folder in (cut, whole)]
    assert losses[0] == losses[1]


def test_finished_runs_are_left_alone_and_others_are_not_overwritten(
    runs: Path, tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "pretrain_mae_smoke", tmp_path / "pretrain_mae_smoke")
    config = ["--config", str(EXPERIMENTS / "pretrain_mae_smoke.yaml")]
    experiment_file = tmp_path / "pretrain_mae_smoke" / "experiment.yaml"
    experiment_file.write_text(experiment_file.read_text().replace(str(runs), str(tmp_path)))
    assert main([*config, *flags(tiny, tmp_path)]) == 0
    assert "finished already" in capsys.readouterr().out
    assert main([*config, *flags(tiny, tmp_path, "--optimizer.lr", "0.5")]) == 2
    error = capsys.readouterr().err
    assert "optimizer.lr: 0.001 -> 0.5" in error
    assert len(error.strip().splitlines()) == 3
    assert main([*config, *flags(tiny, tmp_path, "--optimizer.lr", "0.5", "--trainer.max_steps", "1"), "--fresh"]) == 0
    assert (tmp_path / "pretrain_mae_smoke.1" / "weights" / "model.safetensors").exists()


def test_linear_probe_moves_no_backbone_tensor(runs: Path, tiny: TinyCohort, tmp_path: Path) -> None:
    source = runs / "pretrain_mae_smoke" / "weights"
    probe = run("classify_smoke", tiny, tmp_path, "--task.mode", "linear", "--task.weights", str(source))
    before, after = (load_file(f / "model.safetensors") for f in (source, probe / "weights"))
    backbone = [name for name in before if name.startswith("backbone.")]
    assert all(torch.equal(before[name], after[name]) for name in backbone)
    assert {name for name in after if name.startswith("head.")}
    tuned = load_file(runs / "classify_smoke" / "weights" / "model.safetensors")
    assert any(not torch.equal(before[name], tuned[name]) for name in backbone)


def test_teacher_starts_as_the_student_and_follows_it(tiny: TinyCohort) -> None:
    experiment = load_experiment([EXPERIMENTS / "pretrain_dino_smoke.yaml"], flags(tiny, Path("runs"), *DINO))
    from fmct.experiment.loading import as_record
    from fmct.tasks.base import Setting
    from fmct.tasks.dino import DINOConfig

    assert isinstance(experiment.task, DINOConfig)
    backbone = experiment.backbone.build(3, 24)
    task = experiment.task.build(
        backbone, Setting(experiment.input, experiment.optimizer, experiment.seed, as_record(experiment))
    )
    task.log = lambda *_, **__: None  # type: ignore[method-assign]
    student, teacher = list(task.student.parameters()), list(task.teacher.parameters())
    assert all(torch.equal(s, t) for s, t in zip(student, teacher, strict=True))
    assert not any(t.requires_grad for t in teacher)
    with torch.no_grad():
        student[0].add_(1.0)
    old = teacher[0].clone()
    task.update_teacher(0.9)
    torch.testing.assert_close(teacher[0], old + 0.1 * (student[0] - old))
    task.train()
    assert not task.teacher.training
    assert task.student.training


@pytest.mark.parametrize(
    "name", ["pretrain_mae_smoke", "pretrain_dino_smoke", "pretrain_anomaly_smoke", "classify_smoke"]
)
def test_two_processes_train_on_the_cpu(tiny: TinyCohort, tmp_path: Path, name: str) -> None:
    more = DINO if "dino" in name else ()
    more = (*more, "--task.mode", "scratch", "--task.weights", "null") if "classify" in name else more
    command = [sys.executable, "-m", "fmct.fit", "--config", str(EXPERIMENTS / f"{name}.yaml")]
    ddp = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_steps", "2")
    done = subprocess.run([*command, *flags(tiny, tmp_path, *more, *ddp)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / name / "environment.json").read_text())["processes"] == 2
    assert "warn" not in done.stderr.lower(), done.stderr


def test_bf16_trains_on_the_cpu_with_clipping(tiny: TinyCohort, tmp_path: Path) -> None:
    folder = run(
        "pretrain_mae_smoke",
        tiny,
        tmp_path,
        "--trainer.precision",
        "bf16-mixed",
        "--trainer.max_steps",
        "2",
        "--trainer.clip_norm",
        "1.0",
    )
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["train/loss"].notna().any()
    assert (metrics["train/gradient_norm"].dropna() > 0).all()


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_scans(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", str(EXPERIMENTS / "pretrain_mae_smoke.yaml")]
    assert main([*config, *flags(tiny, tmp_path, "--optimizer.lr", "1e30", "--optimizer.warmup_fraction", "0")]) == 1
    error = capsys.readouterr().err
    assert "3 bad steps in a row: the loss is" in error
    assert "scan0" in error
    assert not (tmp_path / "pretrain_mae_smoke" / "weights").exists()


FULL_SIZE = ["pretrain_mae_vitb", "pretrain_dino_vitb", "pretrain_anomaly_vitb"]
FULL_SIZE_BUT_FOR_PROTOTYPES = ["pretrain_dinov2_vitb", "pretrain_joint_vitb", "pretrain_dino_small_batch"]


@pytest.mark.parametrize("name", [*FULL_SIZE, *FULL_SIZE_BUT_FOR_PROTOTYPES])
def test_full_size_pretraining_takes_two_steps_under_the_smoke_overlay(
    tiny: TinyCohort, tmp_path: Path, name: str
) -> None:
    config = ["--config", str(EXPERIMENTS / f"{name}.yaml"), "--config", str(OVERLAY)]
    fewer = ["--task.head.prototypes", "256"] if name in FULL_SIZE_BUT_FOR_PROTOTYPES else ["--task.weights", "null"]
    assert main([*config, *flags(tiny, tmp_path, *fewer)]) == 0
    assert json.loads((tmp_path / name / "environment.json").read_text())["steps"] == 2


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--data.manifest", "missing.csv"], "the manifest doesn't exist"),
        (["--data.cache", "missing"], "cache"),
        (["--data.train_splits", "pretrain"], "no scan is in the split pretrain"),
        (["--data.sites", "site_z"], "no scan comes from site_z"),
        (["--task.labels", "ICHH"], "the manifest has no label ICHH"),
        (["--task.weights", "missing"], "the weight package doesn't exist"),
    ],
)
def test_wrong_inputs_are_three_lines_and_exit_2(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], expected: str
) -> None:
    base = flags(tiny, tmp_path, "--task.mode", "linear", "--task.weights", "null")
    config = ["--config", str(EXPERIMENTS / "classify_smoke.yaml")]
    assert main([*config, *base, *more]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert "Fix:" in error
    assert len(error.strip().splitlines()) == 3
    assert not (tmp_path / "classify_smoke").exists()


@pytest.mark.parametrize(
    "more",
    [
        ["--trainer.strategy", "dpp"],
        ["--trainer.devices", "0"],
        ["--trainer.accelerator", "gpu"],
    ],
)
def test_hardware_that_is_not_there_is_three_lines(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    if "gpu" in more and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    config = ["--config", str(EXPERIMENTS / "pretrain_mae_smoke.yaml")]
    assert main([*config, *flags(tiny, tmp_path, *more)]) == 2
    error = capsys.readouterr().err
    assert "in trainer: accelerator" in error
    assert len(error.strip().splitlines()) == 3
    assert not (tmp_path / "pretrain_mae_smoke").exists()


def test_a_run_that_never_came_to_a_checkpoint_is_in_nobodys_way(tiny: TinyCohort, tmp_path: Path) -> None:
    config = ["--config", str(EXPERIMENTS / "pretrain_mae_smoke.yaml")]
    wrong = ("--optimizer.lr", "1e30", "--optimizer.warmup_fraction", "0", "--trainer.checkpoint_every_epochs", "9")
    assert main([*config, *flags(tiny, tmp_path, *wrong)]) == 1
    assert main([*config, *flags(tiny, tmp_path, "--trainer.max_steps", "2")]) == 0
    metrics = pd.read_csv(tmp_path / "pretrain_mae_smoke" / "metrics.csv")
    assert metrics["train/loss"].notna().sum() == 2
    assert (tmp_path / "pretrain_mae_smoke.1" / "metrics.csv").exists()


def test_manifest_errors_reach_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort = make_cohort(tmp_path)
    frame = pd.read_csv(cohort.manifest, dtype=str)
    extra = frame.iloc[[0]].assign(scan_id="unknown", split="train", patient_id="somebody")
    broken = {
        "scan_id": pd.concat([frame, frame.iloc[[0]]]),
        "in two splits": frame.assign(patient_id="one"),
        "no rows": frame.iloc[:0],
        "not in the cache": pd.concat([frame, extra]),
    }
    for expected, table in broken.items():
        table.to_csv(cohort.manifest, index=False)
        config = ["--config", str(EXPERIMENTS / "pretrain_mae_smoke.yaml")]
        assert main([*config, *flags(cohort, tmp_path / "runs")]) == 2
        error = capsys.readouterr().err
        assert expected in error, error
        assert str(cohort.manifest) in error or str(cohort.cache) in error
        assert len(error.strip().splitlines()) == 3


def test_weights_of_another_architecture_windows_or_preprocessing_are_refused(
    runs: Path, tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = ["--task.weights", str(runs / "pretrain_mae_smoke")]
    config = ["--config", str(EXPERIMENTS / "classify_smoke.yaml")]
    assert main([*config, *flags(tiny, tmp_path, *weights, "--backbone.depth", "2")]) == 2
    assert "another backbone (weights -> here: depth: 3 -> 2)" in capsys.readouterr().err
    assert main([*config, *flags(tiny, tmp_path, *weights, "--input.voxels", "16")]) == 2
    assert "another input" in capsys.readouterr().err
    other = make_cohort(tmp_path / "other", side=16)
    assert main([*config, *flags(other, tmp_path, *weights)]) == 2
    assert "another preprocessing (weights -> here: shape_voxels: 24 -> 16)" in capsys.readouterr().err
