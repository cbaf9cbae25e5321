"""A loss or gradient that is no number: the step is skipped as a whole, counted and named, and nothing bad is saved."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import TinyCohort
from safetensors.torch import load_file
from torch import Tensor

from fmct.callbacks.nan_guard import NanGuard
from fmct.fit import main
from fmct.tasks.base import skip_step_if
from fmct.tasks.dino import DINOTask
from fmct.tasks.mae import MAETask

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
SPOILED = Path(__file__).resolve().parent / "bad_step_of_one_process.py"
NAN = float("nan")


def arguments(cohort: TinyCohort, runs: Path, task: str = "mae", *more: str) -> list[str]:
    local = ("--task.local_voxels", "16") if task == "dino" else ()
    return [
        *("--config", str(EXPERIMENTS / f"pretrain_{task}_smoke.yaml"), "--trainer.runs", str(runs)),
        *("--data.manifest", str(cohort.manifest), "--data.cache", str(cohort.cache), "--data.val_splits", "[]"),
        *("--input.voxels", "24", "--trainer.pictures_every_steps", "0", *local, *more),
    ]


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[Tensor]]]:
    """Make chosen batches of a task bad; returns the parameters before each batch."""

    def install(task: type, bad: dict[int, Callable[[Any, Any, Tensor], Tensor]]) -> list[list[Tensor]]:
        before: list[list[Tensor]] = []
        step = task.training_step

        def training_step(self: Any, batch: Any, number: int) -> Tensor:
            before.append([parameter.detach().clone() for parameter in self.parameters()])
            loss: Tensor = step(self, batch, number)
            change = bad.get(len(before) - 1)
            return change(self, batch, loss) if change else loss

        monkeypatch.setattr(task, "training_step", training_step)
        return before

    return install


def no_number(task: Any, batch: Any, loss: Tensor) -> Tensor:
    return loss + NAN


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.fixture(params=[True, False], ids=["fused", "plain"])
def optimizers(request: pytest.FixtureRequest) -> tuple[torch.optim.AdamW, torch.optim.AdamW]:
    """Two optimizers alike, which have stepped once."""

    def make() -> torch.optim.AdamW:
        generator = torch.Generator().manual_seed(0)
        weights = [torch.randn(4, 3, generator=generator, requires_grad=True), torch.ones(3, requires_grad=True)]
        groups = [{"params": weights[:1], "weight_decay": 0.1}, {"params": weights[1:], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=0.1, fused=request.param)
        set_gradients(optimizer, 1.0)
        optimizer.step()
        return optimizer

    return make(), make()


def weights_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def set_gradients(optimizer: torch.optim.Optimizer, value: float) -> None:
    for number, weight in enumerate(weights_of(optimizer)):
        weight.grad = torch.full_like(weight, value * (number + 1))


def test_a_skipped_step_is_as_if_it_never_was(optimizers: tuple[torch.optim.AdamW, torch.optim.AdamW]) -> None:
    skipping, plain = optimizers
    set_gradients(skipping, NAN)
    skip_step_if(skipping, torch.tensor(True))
    skipping.step()
    for optimizer in (skipping, plain):
        set_gradients(optimizer, 0.5)
        skip_step_if(optimizer, torch.tensor(False))
        optimizer.step()
    assert same(weights_of(skipping), weights_of(plain))
    for ours, theirs in zip(skipping.state.values(), plain.state.values(), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    set_gradients(plain, 0.5)
    plain.step()
    assert not same(weights_of(skipping), weights_of(plain))


def test_a_bad_step_is_skipped_counted_and_named(
    tiny: TinyCohort, tmp_path: Path, spoil: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def endless(task: MAETask, batch: Any, loss: Tensor) -> Tensor:
        factor = torch.full_like(loss, float("inf"))
        return loss + torch.where(factor.isinf(), 0.0, task.backbone.norm.weight.sum() * factor)  # 0, gradient 0 · inf

    before = spoil(MAETask, {1: no_number, 4: endless})
    steps = ("--trainer.max_steps", "6", "--data.batch_size", "4")
    assert main(arguments(tiny, tmp_path, "mae", *steps)) == 0
    assert [same(*pair) for pair in itertools.pairwise(before)] == [False, True, False, False, True]
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped")]
    assert "the loss is nan at step 1 (the batch of scan0" in said[0]
    assert "the gradient is no finite number at step 4" in said[1]
    folder = tmp_path / "pretrain_mae_smoke"
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["train/bad_steps"].tolist() == [0, 1, 1, 1, 2, 2]
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["callbacks"]["NanGuard"] == {"total": 2, "in_a_row": 0}
    assert last["lr_schedulers"][0]["last_epoch"] == last["global_step"] == 6


def test_buffers_are_put_back(tiny: TinyCohort, tmp_path: Path, spoil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    centers: list[Tensor] = []
    step = DINOTask.training_step

    def poisoned(self: DINOTask, batch: Any, number: int) -> Tensor:
        centers.append(self.loss.center.clone())
        if len(centers) == 2:
            batch["global_views"].fill_(NAN)
        return step(self, batch, number)

    monkeypatch.setattr(DINOTask, "training_step", poisoned)
    assert main(arguments(tiny, tmp_path, "dino", "--trainer.max_steps", "4")) == 0
    assert centers[1].abs().sum() > 0
    assert torch.equal(centers[2], centers[1])
    assert centers[3].isfinite().all()
    assert not torch.equal(centers[3], centers[2])


def test_one_bad_batch_skips_the_step_it_is_accumulated_into(tiny: TinyCohort, tmp_path: Path, spoil: Any) -> None:
    before = spoil(MAETask, {2: no_number})
    more = ("--trainer.max_steps", "3", "--data.batch_size", "2", "--trainer.accumulate_batches", "2")
    assert main(arguments(tiny, tmp_path, "mae", *more)) == 0
    assert same(before[2], before[4])
    assert not same(before[0], before[2])


@pytest.mark.parametrize(
    ("bad", "more", "expected"),
    [
        ((3, 4, 5), (), "3 bad steps in a row: the loss is nan at step 5"),
        ((3, 5), ("--callbacks.max_bad_steps", "1"), "2 bad steps: the loss is nan at step 5"),
    ],
)
def test_too_many_stop_the_run_and_the_last_checkpoint_is_whole(
    tiny: TinyCohort,
    tmp_path: Path,
    spoil: Any,
    capsys: pytest.CaptureFixture[str],
    bad: tuple[int, ...],
    more: tuple[str, ...],
    expected: str,
) -> None:
    spoil(MAETask, dict.fromkeys(bad, no_number))
    assert main(arguments(tiny, tmp_path, "mae", "--data.batch_size", "4", *more)) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("skipped")]
    assert len(error) == 3
    assert expected in error[0]
    assert "the batch of scan0" in error[1]
    last = torch.load(tmp_path / "pretrain_mae_smoke" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3
    assert all(value.isfinite().all() for value in last["state_dict"].values())
    assert not (tmp_path / "pretrain_mae_smoke" / "weights").exists()


def test_weights_that_are_no_numbers_are_never_saved(
    tiny: TinyCohort, tmp_path: Path, spoil: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def overflow(task: MAETask, batch: Any, loss: Tensor) -> Tensor:
        task.backbone.cls_token.data[0, 0, 0] = NAN
        return loss

    spoil(MAETask, {5: overflow})
    assert main(arguments(tiny, tmp_path, "mae", "--data.batch_size", "4")) == 1
    error = capsys.readouterr().err
    assert "the weights hold values that are no finite numbers at step 6" in error
    assert "backbone.cls_token" in error
    checkpoints = tmp_path / "pretrain_mae_smoke" / "checkpoints"
    assert sorted(path.name for path in checkpoints.glob("*.ckpt")) == ["last.ckpt", "step0000003.ckpt"]


def test_counts_go_on_after_a_resume() -> None:
    guard = NanGuard(2)
    guard.load_state_dict({"total": 2, "in_a_row": 0})
    assert guard.state_dict() == {"total": 2, "in_a_row": 0}


def test_processes_skip_together_and_name_whose_batch_it_was(
    tiny: TinyCohort, tmp_path: Path, spoil: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the labeled scans are embedded once each, divided among them: all is as in one process."""
    knn = ("--callbacks.online_knn.manifest", str(tiny.manifest), "--callbacks.online_knn.labels", "ICH")
    more = (*knn, "--trainer.max_steps", "4", "--trainer.matmul_precision", "highest")
    flags = arguments(tiny, tmp_path / "two", "mae", *more, "--data.batch_size", "2")
    ddp = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    done = subprocess.run([sys.executable, str(SPOILED), *flags, *ddp], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    skipped = [line for line in done.stderr.splitlines() if line.startswith("skipped")]
    assert len(skipped) == 1

    spoil(MAETask, {1: no_number})
    assert main(arguments(tiny, tmp_path / "one", "mae", *more, "--data.batch_size", "4")) == 0
    batch = re.findall(r"scan\d+", capsys.readouterr().err)
    assert re.findall(r"scan\d+", skipped[0]) == batch[1::2]  # the second process's half
    two, one = (tmp_path / name / "pretrain_mae_smoke" for name in ("two", "one"))
    ours, theirs = (load_file(folder / "weights" / "model.safetensors") for folder in (two, one))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-5, rtol=0, msg=name)
    metrics = [pd.read_csv(folder / "metrics.csv") for folder in (two, one)]
    assert metrics[0]["train/bad_steps"].tolist() == metrics[1]["train/bad_steps"].tolist() == [0, 1, 1, 1]
    assert metrics[0]["knn/auroc"].iloc[-1] == pytest.approx(metrics[1]["knn/auroc"].iloc[-1], abs=1e-6)
