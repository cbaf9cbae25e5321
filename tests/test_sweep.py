"""`fmct sweep`: the shipped sweeps in small, killed and resumed, with runs that fail, here and as SLURM arrays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_slurm
import pandas as pd
import pytest
import yaml
from conftest import TinyCohort
from sklearn.metrics import roc_auc_score
from study_cohort import EXPERIMENTS, overlay, write_cohort

from fmct.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")
KILLED_STUDIES = Path(__file__).resolve().parent / "killed_studies.py"
SMOKE = EXPERIMENTS / "overlays" / "smoke.yaml"
LABELS = {"task": {"labels": ["ICH", "SDH"]}}


def shipped(name: str, folder: Path, **changes: Any) -> Path:
    """Write a sweep of experiments/ with other values, its configs where they are."""
    content = yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text()) | changes
    for part in [content, *content.get("stages", {}).values()]:
        if "configs" in part:
            part["configs"] = [str(EXPERIMENTS / config) for config in part["configs"]]
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> TinyCohort:
    """Two sites in one manifest."""
    return write_cohort(tmp_path_factory.mktemp("sites"))


def finished(folder: Path) -> dict[str, int]:
    return {str(path.parent): path.stat().st_mtime_ns for path in folder.rglob("predictions.parquet")}


def test_the_transfer_matrix_in_small(
    sites: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_manifests").mkdir()
    frame = pd.read_csv(sites.manifest, dtype=str, keep_default_na=False)
    for name, site in (("internal", "site_a"), ("cq500", "site_b")):
        frame[frame["site"] == site].to_csv(tmp_path / "data_manifests" / f"{name}.csv", index=False)
    manifests = {name: f"data_manifests/{name}.csv" for name in ("internal", "cq500")}
    evaluate = [{"name": name, "data": path} for name, path in manifests.items()]
    one_class = frame[frame["site"] == "site_a"].assign(**{"label:ICH": "1"})
    one_class.assign(scan_id=one_class["scan_id"], patient_id="x" + one_class["patient_id"]).to_csv(
        tmp_path / "data_manifests" / "hopeless.csv", index=False
    )
    grid = {"data.manifest": manifests | {"hopeless": "data_manifests/hopeless.csv"}, "seed": [0, 1]}
    sweep = shipped("transfer_matrix", tmp_path, grid=grid, evaluate=evaluate)
    tiny = overlay(tmp_path, sites, task={"labels": ["ICH", "SDH"], "mode": "linear", "weights": None})
    arguments = ["sweep", str(sweep), "--config", str(SMOKE), "--config", str(tiny), "--bootstrap", "200"]
    subprocess.run([sys.executable, str(KILLED_STUDIES), json.dumps([[2, arguments]])], check=True)
    folder = tmp_path / "runs" / "transfer_matrix"
    before = finished(folder)
    assert len(before) == 4  # two runs, each evaluated twice; the third was killed
    assert main(arguments) == 1
    assert {name: when for name, when in finished(folder).items() if name in before} == before
    printed = capsys.readouterr().out
    assert "4 of 6 runs" in printed
    assert printed.count("label ICH has 16 positive and 0 negative training scans") == 2
    assert max(len(line) for line in printed.splitlines() if not line.startswith(("no result", "4 of"))) <= 100

    table = pd.read_parquet(folder / "sweep.parquet")
    assert table[table["status"] == "failed"]["run"].tolist() == ["hopeless_seed-0", "hopeless_seed-1"]
    results = table[table["status"] == "ok"]
    assert len(results) == 2 * 2 * 2 * 2
    for row in results.to_dict("records"):
        file = folder / row["run"] / "evaluations" / row["evaluation"] / "predictions.parquet"
        rows = pd.read_parquet(file).query("label == @row['label']")
        assert row["auroc"] == pytest.approx(roc_auc_score(rows["target"], rows["probability"]))
        assert set(rows["site"]) == {{"internal": "site_a", "cq500": "site_b"}[row["evaluation"]]}
        assert set(rows["split"]) == {"test"}

    (folder / "sweep.json").unlink()
    assert main([*arguments, "--collect"]) == 1
    collected = json.loads((folder / "sweep.json").read_text())
    assert [one["reason"] for one in collected["failed"]] == ["not finished", "not finished"]
    assert len(collected["results"]) == len(table)

    transfer = json.loads((folder / "transfer.json").read_text())
    cells = {(cell["train_site"], cell["test_site"], cell["label"]): cell for cell in transfer["cells"]}
    assert len(cells) == 2 * 2 * 2
    for (train_site, test_site, label), cell in cells.items():
        of_seeds = results[
            results["run"].str.startswith(train_site)
            & (results["evaluation"] == test_site)
            & (results["label"] == label)
        ]
        assert cell["auroc"] == pytest.approx(of_seeds["auroc"].mean())
        assert cell["own_site"] == (train_site == test_site)
        assert cell["n"] == 24
        if label == "SDH":  # nothing that these features tell; ICH may be ranked without a spread
            assert cell["ci"][0] <= cell["auroc"] <= cell["ci"][1]
    assert {tuple(mean["labels"]) for mean in transfer["mean"]} == {("ICH", "SDH")}


def test_the_scaling_study_in_small(sites: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load((EXPERIMENTS / "scaling_study.yaml").read_text())["stages"]
    content["adapt"]["evaluate"] = [{"name": "own", "data": str(sites.manifest)}]
    grid = {"pretrain.data.fraction": ["scratch", 0.5], "adapt.data.fraction": [0.25, 1.0], "seed": [3]}
    sweep = shipped("scaling_study", tmp_path, grid=grid, stages=content)
    no_labels, labels = tmp_path / "no_labels.yaml", tmp_path / "labels.yaml"
    overlay(tmp_path, sites).rename(no_labels)
    labels.write_text(yaml.safe_dump(LABELS))
    staged = yaml.safe_load(sweep.read_text())
    staged["stages"]["adapt"]["configs"].append(str(labels))
    sweep.write_text(yaml.safe_dump(staged, sort_keys=False))
    arguments = ["sweep", str(sweep), "--config", str(SMOKE), "--config", str(no_labels), "--bootstrap", "200"]
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["runs"], record["failed"]) == (5, [])
    folder = tmp_path / "runs" / "scaling_study"
    table = pd.read_parquet(folder / "sweep.parquet")
    assert sorted(set(zip(table["pretrain.data.fraction"], table["adapt.data.fraction"], strict=True))) == [
        ("0.5", 0.25), ("0.5", 1.0), ("scratch", 0.25), ("scratch", 1.0),
    ]  # fmt: skip
    scans = {
        run.name: json.loads((run / "environment.json").read_text())["scans"] for run in (folder / "adapt").glob("pre*")
    }
    assert sorted(scans.values()) == [8, 8, 32, 32]
    assert (
        json.loads((folder / "pretrain" / "pretrain.fraction-0.5_seed-3" / "environment.json").read_text())["scans"]
        == 16
    )
    before = finished(folder)
    assert main(arguments) == 0
    assert finished(folder) == before
    assert "scaling_study, adapt: 4 of 4 are done already" in capsys.readouterr().err


def test_training_patients_among_the_tested_ones_are_refused(
    sites: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate = [{"name": "leak", "data": str(sites.manifest), "split": "all"}]
    sweep = shipped("transfer_matrix", tmp_path, grid={"seed": [0]}, evaluate=evaluate, transfer=None)
    tiny = overlay(tmp_path, sites, **LABELS)
    assert main(["sweep", str(sweep), "--config", str(SMOKE), "--config", str(tiny)]) == 2
    assert "32 of the patients of evaluation leak are among those trained on" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def stages_for_slurm(folder: Path, sites: TinyCohort) -> Path:
    """Write a sweep of one pretraining and two adaptations, of which the first has too few patients to learn from."""
    stages = {
        "pretrain": {"configs": [str(EXPERIMENTS / "pretrain_mae_smoke.yaml"), str(SMOKE)]},
        "adapt": {
            "configs": [str(EXPERIMENTS / "classify_smoke.yaml"), str(SMOKE)],
            "set": {"task.labels": ["ICH", "SDH"]},
            "weights_from": "pretrain",
            "evaluate": [{"name": "own", "data": str(sites.manifest)}],
        },
    }
    path = folder / "sweep.yaml"
    grid = {"pretrain.task.mask_ratio": [0.6], "adapt.data.fraction": [0.03, 1.0]}
    path.write_text(yaml.safe_dump({"name": "arrays", "stages": stages, "grid": grid}, sort_keys=False))
    return path


def with_arrays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an `sbatch` that runs arrays on the PATH; returns where it keeps the jobs."""
    monkeypatch.setenv("PATH", f"{fake_slurm.install_arrays(folder)}{os.pathsep}{os.environ['PATH']}")
    return folder / "slurm_state"


ASKED = "walltime=01:00:00,cores=4,gpus=1,partition=gpu,account=lab,memory=8GB,at_a_time=2"


def test_slurm_gets_an_array_per_stage_and_each_element_its_commands(
    sites: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = with_arrays(tmp_path, monkeypatch)
    stub = tmp_path / "python"  # some scans were left out in pretraining; the first adaptation fails
    stub.write_text(
        f'#!/bin/sh\necho "$3 $4 $5 $6 $7" | tr "\\n" " " >> {state}/said\necho "$*" >> {state}/said\n'
        'case "$*" in *fraction-0.03*) exit 2 ;; *mae_smoke*) exit 3 ;; esac\n'
    )
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    sweep, tiny = stages_for_slurm(tmp_path, sites), overlay(tmp_path, sites)
    arguments = ["sweep", str(sweep), "--config", str(tiny), "--bootstrap", "200"]
    assert main([*arguments, "--slurm", ASKED]) == 0
    printed = capsys.readouterr().out
    assert "job 1: pretrain, 1 runs" in printed
    assert "job 2: adapt, 2 runs" in printed
    adapt = (state / "2.sh").read_text().splitlines()
    assert {
        "#SBATCH --array=0-1%2", "#SBATCH --requeue", "#SBATCH --time=01:00:00", "#SBATCH --cpus-per-task=4",
        "#SBATCH --gpus-per-node=1", "#SBATCH --partition=gpu", "#SBATCH --account=lab", "#SBATCH --mem=8GB",
    } <= set(adapt)  # fmt: skip
    words = [(state / f"{job}.words").read_text() for job in (1, 2, 3)]
    assert words == ["--parsable", "--parsable\n--dependency=afterany:1", "--parsable\n--dependency=afterany:2"]
    assert [(state / f"{name}.code").read_text() for name in ("1_0", "2_0", "2_1", "3_None")] == ["0", "2", "0", "0"]
    said = [line.split("-m fmct.cli ")[1].split()[0] for line in (state / "said").read_text().splitlines()]
    assert said == ["fit", "fit", "fit", "evaluate", "sweep"]  # what failed isn't evaluated
    assert (state / "said").read_text().splitlines()[-1].endswith(f"--collect --bootstrap 200 --config {tiny}")

    (state / "refuse").touch()
    assert main([*arguments, "--slurm", ASKED]) == 2
    assert "SLURM takes no job (sbatch: error: invalid partition specified: nowhere)" in capsys.readouterr().err
    assert main([*arguments, "--slurm", "walltim=1"]) == 2
    assert "did you mean 'walltime'?" in capsys.readouterr().err
    assert main([*arguments, "--slurm", ASKED, "--collect"]) == 2
    assert "exclude each other" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    assert main([*arguments, "--slurm", ASKED]) == 2
    assert "there is no `sbatch` here" in capsys.readouterr().err


@pytest.mark.slow
def test_slurm_arrays_give_what_the_sweep_gives(
    sites: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = with_arrays(tmp_path, monkeypatch)
    sweep, tiny = stages_for_slurm(tmp_path, sites), overlay(tmp_path, sites)
    arguments = ["sweep", str(sweep), "--config", str(tiny), "--bootstrap", "200"]
    assert main([*arguments, "--slurm", ASKED]) == 0
    assert [(state / f"{name}.code").read_text() for name in ("1_0", "2_0", "2_1", "3_None")] == ["0", "2", "0", "1"]
    record = json.loads((tmp_path / "runs" / "arrays" / "sweep.json").read_text())  # written by the last job
    assert [one["run"] for one in record["failed"]] == ["pretrain.mask_ratio-0.6_adapt.fraction-0.03"]
    capsys.readouterr()
    assert main([*arguments, "--runs", str(tmp_path / "here"), "--json"]) == 1
    here = json.loads(capsys.readouterr().out)
    done = [row for row in here["results"] if row["status"] == "ok"]
    assert done == [row for row in record["results"] if row["status"] == "ok"]
