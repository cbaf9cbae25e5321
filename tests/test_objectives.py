"""The objectives of pretraining in a run: what has no weight costs nothing, and what is frozen doesn't move."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from conftest import TinyCohort
from safetensors.torch import load_file
from torch import nn

from fmct.console.errors import UsageError
from fmct.experiment.loading import as_record, load_experiment
from fmct.fit import fit
from fmct.tasks.base import Setting
from fmct.tasks.dino import DINOConfig, DINOTask

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
DINO = EXPERIMENTS / "pretrain_dino_smoke.yaml"
EVERYTHING = (
    *("--task.ibot.weight", "1", "--task.ibot.foreground", "true", "--task.ibot.mask_probability", "0.8"),
    *("--task.koleo_weight", "0.1", "--task.centering", "sinkhorn", "--task.mae_weight", "1"),
    *("--task.mae.foreground", "true", "--task.mae.decoder.width", "24", "--task.mae.decoder.heads", "2"),
)


def flags(cohort: TinyCohort, runs: Path, *more: str) -> list[str]:
    return [
        *("--data.manifest", str(cohort.manifest), "--data.cache", str(cohort.cache), "--trainer.runs", str(runs)),
        *("--input.voxels", "24", "--task.local_voxels", "16", *more),
    ]


def built(cohort: TinyCohort, *more: str) -> DINOTask:
    experiment = load_experiment([DINO], flags(cohort, Path("runs"), *more))
    L.seed_everything(experiment.seed, verbose=False)
    backbone = experiment.backbone.build(3, 24)
    setting = Setting(experiment.input, experiment.optimizer, experiment.seed, as_record(experiment))
    assert isinstance(experiment.task, DINOConfig)
    return experiment.task.build(backbone, setting)


def test_objectives_without_weight_have_no_parameters_and_no_state(tiny: TinyCohort) -> None:
    plain, full = built(tiny), built(tiny, *EVERYTHING)
    names = set(plain.state_dict())
    assert {name.split(".")[0] for name in names} == {"student", "teacher", "loss"}
    added = set(full.state_dict()) - names
    assert names < set(full.state_dict())
    assert {".".join(name.split(".")[:2]) for name in added if not name.startswith("decoder.")} == {
        *("ibot.mask_token", "ibot.loss")
    }
    assert [module for module, _ in plain.trainable()] == [plain.student]
    assert [module for module, _ in full.trainable()] == [full.student, full.ibot, full.decoder]


def test_patches_may_have_a_head_of_their_own_which_the_teacher_copies(tiny: TinyCohort) -> None:
    task = built(tiny, "--task.ibot.weight", "1", "--task.ibot.head.prototypes", "77", "--task.ibot.head.hidden", "24")
    assert task.student.patch_head is not None
    assert task.ibot is not None
    assert task.ibot.loss.center.shape == (1, 77)
    assert task.loss.center.shape == (1, 256)
    pairs = zip(task.student.state_dict().items(), task.teacher.state_dict().items(), strict=True)
    assert all(ours == theirs and torch.equal(a, b) for (ours, a), (theirs, b) in pairs)
    assert len(task.student.last_layers()) == 2


@pytest.mark.parametrize("key", ["task.ibot.weight", "task.mae_weight"])
def test_hiding_patches_needs_a_transformer(tiny: TinyCohort, key: str) -> None:
    experiment = load_experiment([DINO], flags(tiny, Path("runs"), f"--{key}", "1"))
    assert isinstance(experiment.task, DINOConfig)
    setting = Setting(experiment.input, experiment.optimizer, experiment.seed, {})
    other: Any = nn.Conv3d(3, 8, 4)
    with pytest.raises(UsageError, match=f"{key} above 0 needs a backbone of kind vit3d"):
        experiment.task.build(other, setting)


@pytest.fixture(scope="module")
def one(tiny: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all objectives together, five steps of four scans."""
    runs = tmp_path_factory.mktemp("one")
    return fit(load_experiment([DINO], flags(tiny, runs, *EVERYTHING, *STEPS, "--data.batch_size", "4")))


STEPS = (
    *("--trainer.max_steps", "5", "--trainer.matmul_precision", "highest", "--optimizer.lr", "1e-4"),
    *("--task.freeze_last_layer_epochs", "0", "--trainer.clip_norm", "1"),
)


def test_every_part_of_the_loss_is_logged_and_they_add_up(one: Path) -> None:
    metrics = pd.read_csv(one / "metrics.csv")
    weights = {"dino": 1, "ibot": 1, "koleo": 0.1, "mae": 1}
    parts = sum(metrics[f"train/loss_{name}"] * weight for name, weight in weights.items())
    pd.testing.assert_series_equal(metrics["train/loss"], parts, check_names=False, rtol=1e-5)
    assert metrics["train/teacher_entropy"].between(0, 5.6).all()
    assert metrics["train/kl_to_uniform"].between(0, 5.6).all()
    assert {path.name.split("_step")[0] for path in (one / "pictures").iterdir()} == {"views", "reconstruction"}


def test_two_processes_equal_one_with_all_objectives(one: Path, tiny: TinyCohort, tmp_path: Path) -> None:
    ddp = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "2")
    command = [sys.executable, "-m", "fmct.fit", "--config", str(DINO), *flags(tiny, tmp_path, *EVERYTHING, *STEPS)]
    done = subprocess.run([*command, *ddp], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "pretrain_dino_smoke"
    ours, theirs = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in (folder, one)
    )
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-5, rtol=0, msg=name)
    koleo = [pd.read_csv(run / "metrics.csv")["train/loss_koleo"] for run in (folder, one)]
    pd.testing.assert_series_equal(*koleo, rtol=1e-5)  # every process logs that of all scans


def test_prototypes_stay_as_they_were_in_frozen_epochs(tiny: TinyCohort, tmp_path: Path) -> None:
    more = ("--task.ibot.weight", "1", "--task.ibot.head.prototypes", "32", "--task.ibot.head.hidden", "24")
    frozen = ("--optimizer.weight_decay", "0.4", "--task.freeze_last_layer_epochs", "1", "--trainer.max_epochs", "1")
    start = built(tiny, *more).state_dict()
    folder = fit(load_experiment([DINO], flags(tiny, tmp_path, *more, *frozen)))
    end = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name in ("head.prototypes", "patch_head.prototypes"):
        assert torch.equal(start[f"student.{name}"], end[f"student.{name}"]), name
        assert torch.equal(start[f"teacher.{name}"], end[f"teacher.{name}"]), name
    for name in ("student.head.mlp.0.weight", "student.patch_head.mlp.0.weight", "ibot.mask_token"):
        assert not torch.equal(start[name], end[name]), name


def test_the_package_of_a_run_with_all_objectives_is_a_plain_encoder(one: Path, tiny: TinyCohort) -> None:
    packaged = set(load_file(one / "weights" / "model.safetensors"))
    assert packaged == {f"backbone.{name}" for name in built(tiny).student.backbone.state_dict()}
