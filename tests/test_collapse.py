"""The collapse alarm: what it calls a collapse, what it does then, and that it leaves healthy runs alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TinyCohort
from test_nan_guard import arguments
from torch import Tensor

from fmct.callbacks.collapse import PATIENCE, Readings, symptom
from fmct.fit import main
from fmct.losses.diversity import feature_std, rankme
from fmct.tasks.mae import MAETask

K = 256
LOG_K = math.log(K)


def of_targets(targets: np.ndarray) -> Readings:
    """Read off what a teacher gives, (B, K)."""
    entropy = float(-(targets * np.log(targets + 1e-30)).sum(1).mean())
    mean = targets.mean(0)
    return Readings(prototypes=K, teacher_entropy=entropy, kl_to_uniform=float((mean * np.log(mean * K + 1e-30)).sum()))


def of_features(features: Tensor) -> Readings:
    spread = float(feature_std(features)) * math.sqrt(features.shape[1])
    return Readings(scans=len(features), spread=spread, rank=float(rankme(features - features.mean(0))))


def test_of_targets_both_ways_to_collapse_are_seen_and_health_is_not() -> None:
    rng = np.random.default_rng(0)
    uniform = np.full((32, K), 1 / K) * rng.uniform(0.95, 1.05, (32, K))
    one = np.eye(K)[np.zeros(32, int)]
    sharp = np.eye(K)[rng.integers(0, K, 32)]
    logits = rng.normal(0, 3, (32, K))
    soft = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert "evenly over all prototypes" in (symptom(of_targets(uniform / uniform.sum(1, keepdims=True))) or "")
    assert "one prototype" in (symptom(of_targets(one)) or "")
    assert symptom(of_targets(sharp)) is None
    assert symptom(of_targets(soft)) is None


def test_of_features_both_ways_to_collapse_are_seen_and_health_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    common, apart = torch.randn(1, 96, generator=generator), torch.randn(16, 96, generator=generator)
    line = torch.randn(16, 1, generator=generator) * torch.randn(1, 96, generator=generator)
    assert "are alike" in (symptom(of_features(common + 0.001 * apart)) or "")
    assert "on one line" in (symptom(of_features(common + line)) or "")
    assert symptom(of_features(apart)) is None
    assert symptom(of_features(common + 0.01 * apart)) is None  # as early in training: alike, yet not the same
    assert symptom(of_features(common.expand(2, -1))) is None  # two scans prove nothing
    assert symptom(Readings()) is None


@pytest.fixture
def collapsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the features of all scans be the same."""
    step = MAETask.training_step

    def training_step(self: MAETask, batch: Any, number: int) -> Tensor:
        loss = step(self, batch, number)
        self.watched_features = torch.ones(len(batch["x"]), 8)
        return loss

    monkeypatch.setattr(MAETask, "training_step", training_step)


RUN = ("--data.batch_size", "4", "--trainer.max_epochs", "5", "--optimizer.warmup_fraction", "0.1")
FIRST_ALARM = 1 + PATIENCE  # 15 steps, of which one warms up


@pytest.mark.usefixtures("collapsing")
def test_stop_ends_the_run_with_an_error_after_a_checkpoint(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tiny, tmp_path, "mae", *RUN, "--callbacks.collapse", "stop")) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 3
    assert "training has collapsed: the features of all scans are alike" in error[0]
    assert f"step {FIRST_ALARM}" in error[1]
    folder = tmp_path / "pretrain_mae_smoke"
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == FIRST_ALARM
    assert not (folder / "weights").exists()


@pytest.mark.usefixtures("collapsing")
def test_warn_says_so_once_and_goes_on(tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tiny, tmp_path, "mae", *RUN)) == 0
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 3
    assert error[0].startswith("warning: training has collapsed")
    assert error[2].startswith("  Fix:")
    metrics = pd.read_csv(tmp_path / "pretrain_mae_smoke" / "metrics.csv")
    assert (metrics["train/feature_std"] == 0).all()
    assert metrics["train/rankme"].tolist() == pytest.approx([1.0] * 15, abs=1e-4)


def test_self_distillation_that_collapses_is_caught(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Centered self-distillation on so few scans, which look alike, drifts to uniform targets within thirty steps."""
    more = ("--data.batch_size", "4", "--trainer.max_epochs", "20", "--callbacks.collapse", "stop")
    assert main(arguments(tiny, tmp_path, "dino", *more)) == 1
    assert "training has collapsed: the teacher spreads every scan evenly" in capsys.readouterr().err
    metrics = pd.read_csv(tmp_path / "pretrain_dino_smoke" / "metrics.csv")
    assert metrics["train/loss"].iloc[-1] == pytest.approx(LOG_K, rel=0.01)  # as high as it gets
    assert len(metrics) < 60


def test_a_healthy_run_raises_no_alarm(tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tiny, tmp_path, "mae", *RUN, "--callbacks.collapse", "stop")) == 0
    assert capsys.readouterr().err == ""
    metrics = pd.read_csv(tmp_path / "pretrain_mae_smoke" / "metrics.csv")
    assert metrics["train/rankme_centered"].between(1.2, 3).all()


def test_what_watches_a_run_may_change_while_it_goes_on(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = arguments(tiny, tmp_path, "mae", "--data.batch_size", "4", "--trainer.max_steps", "2")
    assert main(flags) == 0
    assert main([*flags, "--callbacks.max_bad_steps", "3", "--callbacks.collapse", "stop"]) == 0
    assert "finished already" in capsys.readouterr().out
    assert "collapse: stop" in (tmp_path / "pretrain_mae_smoke" / "experiment.yaml").read_text()
    assert main([*flags, "--optimizer.lr", "0.5"]) == 2
