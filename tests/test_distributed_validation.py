"""Two processes validate what one would: every scan once, with the weights and statistics that are packaged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TinyCohort, make_cohort
from random_packages import random_package
from safetensors.torch import load_file
from sklearn.metrics import log_loss, roc_auc_score

import fmct
from fmct.data.volumes import VolumeCache
from fmct.experiment.loading import load_experiment
from fmct.models.packaged import as_batch

pytestmark = pytest.mark.usefixtures("one_thread")
TESTS = Path(__file__).resolve().parent
SMOKE = TESTS.parent / "experiments" / "classify_smoke.yaml"
ODD = 5  # scans that two processes can't share evenly
MODES = {
    "scratch": ("--task.mode", "scratch", "--task.weights", "null", "--task.ema_decay", "0.5"),
    "lora": ("--task.mode", "lora", "--trainer.keep", "best"),
}


def flags(cohort: TinyCohort, runs: Path) -> list[str]:
    return [
        *("--data.manifest", str(cohort.manifest), "--data.cache", str(cohort.cache), "--input.voxels", "24"),
        *("--trainer.runs", str(runs), "--backbone.depth", "1", "--backbone.width", "48", "--task.labels", "[ICH]"),
        *("--optimizer.lr", "0.01", "--data.batch_size", "2", "--trainer.matmul_precision", "highest"),
    ]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> TinyCohort:
    made = make_cohort(tmp_path_factory.mktemp("odd"))
    frame = pd.read_csv(made.manifest, dtype=str)
    val = frame.index[frame["split"] == "val"]
    frame.drop(val[ODD:]).to_csv(made.manifest, index=False)
    return made


@pytest.fixture(scope="module")
def pairs(cohort: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs by two processes, ddp copies and fsdp2 divides."""
    folder = tmp_path_factory.mktemp("pairs")
    base = ["--config", str(SMOKE), *flags(cohort, folder / "random")]
    weights = random_package(load_experiment([SMOKE], base[2:]), cohort.cache, folder / "random")
    jobs = []
    for mode, strategy in (("scratch", "ddp"), ("lora", "ddp"), ("lora", "fsdp2")):
        given = ("--task.weights", str(weights)) if mode == "lora" else ()
        runs = folder / f"{strategy}-{mode}"
        more = [*MODES[mode], *given, "--trainer.strategy", strategy]
        jobs.append({"flags": ["--config", str(SMOKE), *flags(cohort, runs), *more], "killed_at": None})
    subprocess.run([sys.executable, str(TESTS / "forked_pairs.py"), json.dumps(jobs)], check=True, timeout=240)
    return folder


@pytest.mark.parametrize("name", ["ddp-scratch", "ddp-lora", "fsdp2-lora"])
def test_validation_by_two_processes_is_that_of_the_packaged_weights(
    pairs: Path, cohort: TinyCohort, name: str
) -> None:
    run = pairs / name / "classify_smoke"
    frame = pd.read_csv(cohort.manifest, dtype=str)
    val = frame[frame["split"] == "val"]
    assert len(val) == ODD
    model, cache = fmct.load(run), VolumeCache.open(cohort.cache)
    volumes = torch.cat([as_batch(cache.read(scan)) for scan in val["scan_id"]])
    scores = model.probabilities(volumes)[:, 0].double().numpy()
    target = val["label:ICH"].astype(int)
    metrics = pd.read_csv(run / "metrics.csv").set_index("step")
    measured = metrics[metrics["val/loss"].notna()]
    assert len(measured) == 2
    environment = json.loads((run / "environment.json").read_text())
    row = measured[measured.index < environment["packaged_step"]].iloc[-1]
    assert row["val/loss"] == pytest.approx(log_loss(target, scores), abs=1e-5)
    assert row["val/auroc"] == row["val/auroc_ICH"] == pytest.approx(roc_auc_score(target, scores), abs=1e-12)


def test_divided_factors_are_those_of_copied_ones(pairs: Path) -> None:
    ours, theirs = (
        load_file(pairs / f"{strategy}-lora" / "classify_smoke" / "weights" / "model.safetensors")
        for strategy in ("ddp", "fsdp2")
    )
    random = load_file(pairs / "random" / "model.safetensors")
    name = "backbone.blocks.0.attention.qkv.weight"
    assert np.abs((ours[name] - random[name]).numpy()).max() > 1e-4
    torch.testing.assert_close(theirs[name], ours[name], atol=1e-5, rtol=0)
