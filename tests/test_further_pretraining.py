"""Pretraining further: a pretext task that begins with another run's encoder, and says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import TinyCohort
from safetensors.torch import load_file
from study_cohort import EXPERIMENTS

from fmct.cli import main
from fmct.console.errors import UsageError
from fmct.experiment.loading import load_experiment
from fmct.fit import fit

pytestmark = pytest.mark.usefixtures("one_thread")
TASKS = {
    "pretrain_mae_smoke": (),
    "pretrain_dino_smoke": ("--task.local_voxels", "16"),
    "pretrain_anomaly_smoke": (),
}


def run(name: str, tiny: TinyCohort, runs: Path, *more: str) -> Path:
    where = ("--data.manifest", str(tiny.manifest), "--data.cache", str(tiny.cache), "--trainer.runs", str(runs))
    flags = [*where, "--input.voxels", "24", "--trainer.max_steps", "1", *TASKS[name], *more]
    return fit(load_experiment([EXPERIMENTS / f"{name}.yaml"], flags))


@pytest.fixture(scope="module")
def before(tiny: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of masked modelling."""
    return run("pretrain_mae_smoke", tiny, tmp_path_factory.mktemp("before"), "--name", "before")


@pytest.mark.parametrize("name", TASKS)
def test_each_pretext_task_goes_on_from_another_s_encoder(
    before: Path, tiny: TinyCohort, tmp_path: Path, name: str
) -> None:
    hardly = ("--optimizer.lr", "1e-12", "--optimizer.weight_decay", "0")
    folder = run(name, tiny, tmp_path, "--task.weights", str(before), *hardly)
    theirs, ours = (load_file(one / "weights" / "model.safetensors") for one in (before, folder))
    assert theirs.keys() == ours.keys()
    for key, tensor in theirs.items():
        torch.testing.assert_close(ours[key], tensor, rtol=0, atol=1e-6)
    history = json.loads((folder / "history.json").read_text())
    assert history[0]["weights_sha256"] is not None


def test_the_card_names_what_both_learned_from(before: Path, tiny: TinyCohort, tmp_path: Path) -> None:
    folder = run("pretrain_anomaly_smoke", tiny, tmp_path, "--task.weights", str(before))
    assert main(["export", str(folder), "--out", str(tmp_path / "package")]) == 0
    facts = json.loads((tmp_path / "package" / "training.json").read_text())
    assert facts["configuration"]["task"]["kind"] == "anomaly"
    assert facts["started_from"]["name"] == "before"
    assert facts["started_from"]["training"]["configuration"]["task"]["kind"] == "mae"


def test_an_encoder_of_another_shape_is_refused(before: Path, tiny: TinyCohort, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"made with another backbone \(weights -> here: width: 96 -> 48\)"):
        run("pretrain_anomaly_smoke", tiny, tmp_path, "--task.weights", str(before), "--backbone.width", "48")
