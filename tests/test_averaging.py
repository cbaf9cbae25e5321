"""Averaged, early stopped and best weights: what is kept, and that a run which was cut goes on exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TIMED, TinyCohort
from safetensors.torch import load_file

from fmct.callbacks.averaging import Averaging, moving_average
from fmct.callbacks.best_weights import BestWeights
from fmct.callbacks.early_stopping import EarlyStopping, EarlyStoppingConfig
from fmct.callbacks.monitored_metric import higher_is_better
from fmct.callbacks.nan_guard import NanGuard
from fmct.console.errors import UsageError
from fmct.experiment.loading import load_experiment
from fmct.export import Export
from fmct.fit import fit, main
from fmct.tasks.classifier import ClassifierTask

pytestmark = pytest.mark.usefixtures("one_thread")
EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
SMOKE = EXPERIMENTS / "classify_smoke.yaml"


def flags(cohort: TinyCohort, runs: Path, *more: str) -> list[str]:
    return [
        *("--data.manifest", str(cohort.manifest), "--data.cache", str(cohort.cache), "--input.voxels", "24"),
        *("--trainer.runs", str(runs), "--backbone.depth", "1", "--backbone.width", "48"),
        *("--task.mode", "scratch", "--task.weights", "null", *more),
    ]


def run(cohort: TinyCohort, runs: Path, *more: str) -> Path:
    return fit(load_experiment([SMOKE], flags(cohort, runs, *more)))


def script(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Make the mean AUROC of validations what is wanted."""
    left = iter(values)

    def log(task: ClassifierTask) -> None:
        task.seen.clear()
        task.log("val/auroc", next(left), prog_bar=True, sync_dist=True)

    monkeypatch.setattr(ClassifierTask, "on_validation_epoch_end", log)


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The weights after each optimizer step."""
    found: list[dict[str, torch.Tensor]] = []

    def keep(task: ClassifierTask, *_: Any) -> None:
        found.append({name: tensor.clone() for name, tensor in task.state_dict().items()})

    monkeypatch.setattr(ClassifierTask, "on_train_batch_end", keep)
    return found


def test_the_average_moves_fast_at_first_and_slowly_in_the_end() -> None:
    average, current = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])
    early = moving_average(0.99, average, current, torch.tensor(1))
    torch.testing.assert_close(early, 2 / 11 * average + 9 / 11 * current)
    late = moving_average(0.99, average, current, torch.tensor(10**6))
    torch.testing.assert_close(late, 0.99 * average + 0.01 * current)
    assert late[1] == 2  # what doesn't move keeps its bits


def test_averaged_weights_are_validated_and_packaged(
    tiny: TinyCohort, tmp_path: Path, states: list[dict[str, torch.Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    validated: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(
        ClassifierTask,
        "on_validation_epoch_start",
        lambda task: validated.append({n: t.clone() for n, t in task.state_dict().items()}),
        raising=False,
    )
    folder = run(tiny, tmp_path, "--task.ema_decay", "0.6", "--task.balance", "pos_weight")
    packaged = load_file(folder / "weights" / "model.safetensors")
    average = {name: tensor.clone() for name, tensor in states[0].items()}
    for updates, state in enumerate(states[1:], 1):
        decay = min(0.6, (1 + updates) / (10 + updates))
        average = {name: decay * average[name] + (1 - decay) * state[name] for name in state}
    parameters = [name for name in packaged if "norm." not in name or "backbone" in name]
    for name in parameters:
        torch.testing.assert_close(packaged[name], average[name], atol=1e-6, rtol=1e-5)
        assert torch.equal(packaged[name], validated[-1][name]), name
    assert not torch.equal(packaged["head.linear.weight"], states[-1]["head.linear.weight"])
    assert torch.equal(packaged["head.norm.running_mean"], states[-1]["head.norm.running_mean"])  # buffers are current
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert torch.equal(checkpoint["current_model_state"]["head.linear.weight"], states[-1]["head.linear.weight"])


def test_a_run_ends_when_validations_get_no_better_and_its_best_weights_are_packaged(
    tiny: TinyCohort,
    tmp_path: Path,
    states: list[dict[str, torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script(monkeypatch, [0.5, 0.7, 0.7, 0.705, 0.6, 0.9])
    stop = ("--callbacks.early_stopping.patience_validations", "3", "--callbacks.early_stopping.min_delta", "0.01")
    folder = run(tiny, tmp_path, "--trainer.max_epochs", "9", "--trainer.keep", "best", *stop)
    environment = json.loads((folder / "environment.json").read_text())
    steps = 3  # of an epoch
    assert (environment["epochs"], environment["steps"], environment["packaged_step"]) == (5, 5 * steps, 4 * steps)
    packaged = load_file(folder / "weights" / "model.safetensors")
    assert all(torch.equal(tensor, states[4 * steps - 1][name]) for name, tensor in packaged.items())
    assert json.loads((folder / "weights" / "config.json").read_text())["steps"] == 4 * steps
    printed = capsys.readouterr().out
    assert "of step 12, the best val/auroc (0.705)" in printed
    assert "ends early: 3 validations without val/auroc beyond 0.7\n" in printed
    (folder / "weights").rename(tmp_path / "first")
    assert Export(run_folder=folder, out=tmp_path / "again").run() == 0
    names = ("model.safetensors", "config.json")
    assert all((tmp_path / "first" / n).read_bytes() == (tmp_path / "again" / n).read_bytes() for n in names)


def test_less_loss_is_better() -> None:
    assert higher_is_better("val/auroc_Loss of something")
    assert not higher_is_better("val/loss")
    with pytest.raises(UsageError, match="val/speed doesn't tell whether more of it is better"):
        EarlyStoppingConfig(metric="val/speed").build()
    for metric, mode in (("val/loss", "min"), ("val/auroc", "max")):
        assert EarlyStoppingConfig(metric=metric).build().mode == mode


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--callbacks.early_stopping.metric", "val/auroc_SDH"), "val/loss, val/auroc, val/auroc_ICH, val/auroc_Mid"),
        (("--trainer.keep", "best", "--trainer.keep_metric", "train/loss"), "choose among val/loss, val/auroc"),
        (("--trainer.keep", "best", "--data.val_splits", "[]"), "there are no validation scans"),
        (("--callbacks.early_stopping.metric", "val/speed"), "doesn't tell whether more of it is better"),
    ],
)
def test_metrics_that_are_never_logged_are_three_lines_before_the_first_step(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], expected: str
) -> None:
    assert main(["--config", str(SMOKE), *flags(tiny, tmp_path, *more)]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 3
    assert not (tmp_path / "classify_smoke" / "metrics.csv").exists()


class PowerCutError(Exception):
    pass


EVERYTHING = (
    *(
        "--task.ema_decay",
        "0.8",
        "--trainer.keep",
        "best",
        "--task.loss.kind",
        "focal",
        "--optimizer.layer_decay",
        "0.8",
    ),
    *("--callbacks.early_stopping.patience_validations", "2", "--trainer.checkpoint_every_steps", "2"),
    *("--task.loss.label_smoothing", "0.1", "--backbone.drop_path", "0.2", "--trainer.max_epochs", "6"),
)


@pytest.mark.parametrize("cut_at", [5, 8, 12])
def test_a_cut_run_goes_on_exactly(
    tiny: TinyCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_at: int
) -> None:
    values = [0.5, 0.8, 0.7, 0.6, 0.9, 0.9]  # stops after four epochs of three steps

    with monkeypatch.context() as patch:
        script(patch, values)
        whole = run(tiny, tmp_path / "whole", *EVERYTHING)
    assert json.loads((whole / "environment.json").read_text())["steps"] == 12

    def cut(trainer: Any, *_: Any) -> None:
        if trainer.global_step == cut_at:
            raise PowerCutError

    with monkeypatch.context() as patch:
        script(patch, values)
        if cut_at < 12:
            patch.setattr(NanGuard, "on_train_batch_start", lambda _guard, trainer, *_: cut(trainer))
        else:  # all is done but the package
            patch.setattr(ClassifierTask, "on_train_end", lambda task: cut(task.trainer), raising=False)
        with pytest.raises(PowerCutError):
            run(tiny, tmp_path / "cut", *EVERYTHING)
    went_on_from = int((tmp_path / "cut" / "classify_smoke" / "checkpoints" / "last.ckpt").readlink().stem[4:])
    with monkeypatch.context() as patch:
        script(patch, values[went_on_from // 3 :])
        again = run(tiny, tmp_path / "cut", *EVERYTHING)
    assert 0 < went_on_from <= cut_at
    ours, theirs = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (again, whole))
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(ours[part][key], theirs[part][key]) for key in theirs[part])
    assert (again / "weights/model.safetensors").read_bytes() == (whole / "weights/model.safetensors").read_bytes()
    assert json.loads((again / "weights" / "config.json").read_text())["steps"] == 6
    tables = [pd.read_csv(f / "metrics.csv").drop(columns=TIMED, errors="ignore") for f in (again, whole)]
    pd.testing.assert_frame_equal(*tables)


def test_more_patience_lets_a_stopped_run_go_on() -> None:
    before = EarlyStoppingConfig(patience_validations=2).build()
    before.wait_count = 2
    after = EarlyStoppingConfig(patience_validations=5).build()
    after.load_state_dict(before.state_dict())
    assert (after.wait_count, after.patience) == (2, 5)


def test_callbacks_come_into_the_trainer_only_where_they_are_asked_for(tiny: TinyCohort, tmp_path: Path) -> None:
    folder = run(tiny, tmp_path, "--trainer.max_steps", "1")
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    kinds = (Averaging, BestWeights, EarlyStopping)
    assert not any(kind.__name__ in key for key in checkpoint["callbacks"] for kind in kinds)
    assert "current_model_state" not in checkpoint
    assert np.isfinite(pd.read_csv(folder / "metrics.csv")["val/loss"].iloc[-1])
