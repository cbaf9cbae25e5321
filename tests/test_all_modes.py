"""Sixty synthetic scans from files to one report: every way of adapting, by the commands that users type."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from fmct.cli import main
from fmct.tasks.adaptation import Mode

MODES = ("finetune", "scratch", "linear", "attentive", "lora", "knn", "logreg")
EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
SMALL = ["--input.voxels", "24", "--backbone.patch_voxels", "12", "--backbone.width", "48", "--backbone.depth", "2"]


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0, arguments


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a cohort of three sites, a pretraining, every adaptation, their evaluations and the report."""
    root = tmp_path_factory.mktemp("modes")
    cohort, cache, runs = root / "cohort", root / "cache", root / "runs"
    coarse = ("--pixel-mm", 3, "--matrix", 80, "--slice-mm", 9)
    run("phantom", "--n", 60, "--sites", 3, "--seed", 5, *coarse, "--workers", 2, "--out", cohort)
    truth, key = ("--table", cohort / "truth.csv"), ("--key-file", root / "key")
    run("index", cohort, "--out", cohort / "indexed.csv", *truth, *key)
    run("label", cohort / "indexed.csv", *truth, "--on", "path", "--out", cohort / "labeled.csv")
    fractions = ("--fractions", "train=0.6,val=0.4", "--test-sites", "site_c")
    run("split", cohort / "labeled.csv", *fractions, "--out", cohort / "manifest.csv")
    run("preprocess", cohort / "manifest.csv", "--cache", cache, "--spacing-mm", 9, "--shape-voxels", 24)
    data = ("--data.manifest", cohort / "manifest.csv", "--data.cache", cache, "--trainer.runs", runs)
    few = ("--trainer.max_epochs", 1, "--data.batch_size", 8)
    run("fit", "--config", EXPERIMENTS / "pretrain_mae_smoke.yaml", *data, *SMALL, *few, "--name", "mae")
    for mode in MODES:
        weights = "null" if mode == "scratch" else runs / "mae"
        config = ("--config", EXPERIMENTS / "classify_smoke.yaml", "--task.mode", mode, "--task.weights", weights)
        factor = () if mode == "finetune" else ("--task.backbone_lr_factor", 1)
        run("fit", *config, *data, *SMALL, *few, *factor, "--name", mode)
        test = ("--data", cohort / "manifest.csv", "--name", "site_c")
        run("evaluate", runs / mode, *test, "--bootstrap", 100)
    run("embed", cohort / "manifest.csv", "--cache", cache, "--weights", runs / "mae", "--out", root / "e.parquet")
    maps = ("--maps", "relevance", "--labels", "ICH", "--grid", "volume")
    scans = sorted(cohort.glob("site_c/*/*"))[:1]
    run("predict", *scans, "--weights", runs / "linear", "--out", root / "predicted", *maps)
    folders = [runs / "mae", *(runs / mode for mode in MODES)]
    beside = ("--embeddings", root / "e.parquet", "--maps", root / "predicted")
    run("report", *folders, "--out", root / "report.html", "--bootstrap", 100, "--scans", 1, *beside)
    return root


def test_all_modes_there_are_were_tried() -> None:
    assert set(MODES) == set(Mode.__args__)  # type: ignore[attr-defined]  # a Literal's values


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_predicts_the_same_scans_of_a_site_it_never_saw(study: Path, mode: str) -> None:
    folder = study / "runs" / mode / "evaluations" / "site_c"
    predictions = pd.read_parquet(folder / "predictions.parquet")
    manifest = pd.read_csv(study / "cohort" / "manifest.csv", dtype=str)
    assert set(predictions["scan_id"]) == set(manifest[manifest["site"] == "site_c"]["scan_id"])
    assert set(predictions["label"]) == {"ICH", "MidlineShift"}
    assert predictions["probability"].between(0, 1).all()
    metrics = json.loads((folder / "metrics.json").read_text())
    for label, found in metrics["labels"].items():
        rows = predictions[predictions["label"] == label]
        assert found["n_scans"] == rows["target"].notna().sum()
        assert (found["auroc"] is None) == (rows["target"].nunique() < 2)


def test_the_report_compares_each_with_its_own_baseline(study: Path) -> None:
    page = (study / "report.html").read_text()
    for words in ("Low-rank adaptation", "Attentive probe", "Trained from scratch", "Embeddings", "Where models look"):
        assert words in page, words
    assert "relevance" in page
    assert "http" not in page.replace("http-equiv", "")
