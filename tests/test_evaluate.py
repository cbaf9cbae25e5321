"""`fmct evaluate`: predictions from which every figure can be computed again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TinyCohort
from sklearn.metrics import average_precision_score, roc_auc_score

from fmct.cli import main
from fmct.experiment.loading import load_experiment
from fmct.fit import fit

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


@pytest.fixture(scope="module")
def run(tiny: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that has learned ICH."""
    flags = [
        *("--data.manifest", str(tiny.manifest), "--data.cache", str(tiny.cache)),
        *("--task.mode", "scratch", "--task.weights", "null"),
        *("--input.voxels", "24", "--trainer.max_epochs", "25", "--task.backbone_lr_factor", "1.0"),
        *("--trainer.validate_every_epochs", "25", "--trainer.runs", str(tmp_path_factory.mktemp("runs"))),
    ]
    return fit(load_experiment([EXPERIMENTS / "classify_smoke.yaml"], flags))


def evaluate(run: Path, tiny: TinyCohort, *more: str) -> int:
    return main(["evaluate", str(run), "--data", str(tiny.manifest), "--bootstrap", "200", *more])


def test_metrics_follow_from_the_predictions(run: Path, tiny: TinyCohort, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(run, tiny, "--split", "all", "--name", "everything") == 0
    folder = run / "evaluations" / "everything"
    predictions = pd.read_parquet(folder / "predictions.parquet")
    metrics = json.loads((folder / "metrics.json").read_text())
    manifest = pd.read_csv(tiny.manifest, dtype=str, keep_default_na=False)
    assert len(predictions) == 2 * len(manifest)
    assert {"scan_id", "patient_id", "label", "target", "probability", "split", "site", "manufacturer"} <= set(
        predictions
    )
    for label, rows in predictions.groupby("label"):
        known = rows[rows["target"].notna()]
        expected = manifest.set_index("scan_id").loc[rows["scan_id"], f"label:{label}"]
        assert (rows["target"].isna().to_numpy() == (expected == "").to_numpy()).all()
        m = metrics["labels"][label]
        assert m["auroc"] == pytest.approx(roc_auc_score(known["target"], known["probability"]), abs=1e-12)
        assert m["ap"] == pytest.approx(average_precision_score(known["target"], known["probability"]), abs=1e-12)
        assert m["n_scans"] == len(known)
    assert metrics["labels"]["ICH"]["auroc"] > 0.9  # a bright block is easy
    out = capsys.readouterr().out
    assert "AUROC (95 % CI)" in out
    assert str(folder) in out


def test_predictions_do_not_depend_on_batch_size_or_workers(run: Path, tiny: TinyCohort) -> None:
    for name, more in {"one": ["--batch-size", "1"], "many": ["--batch-size", "5", "--workers", "1"]}.items():
        assert evaluate(run, tiny, "--name", name, *more) == 0
    one, many = (pd.read_parquet(run / "evaluations" / n / "predictions.parquet") for n in ("one", "many"))
    assert one["scan_id"].tolist() == many["scan_id"].tolist()
    assert np.array_equal(one["probability"], many["probability"])  # bit for bit


def test_split_and_sites_choose_the_scans(run: Path, tiny: TinyCohort, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(run, tiny, "--sites", "site_b", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    folder = run / "evaluations" / "manifest-test-site_b"
    assert printed == json.loads((folder / "metrics.json").read_text())
    predictions = pd.read_parquet(folder / "predictions.parquet")
    assert set(predictions["site"]) == {"site_b"}
    assert set(predictions["split"]) == {"test"}


def test_a_label_with_one_class_is_not_a_number(run: Path, tiny: TinyCohort, tmp_path: Path) -> None:
    frame = pd.read_csv(tiny.manifest, dtype=str, keep_default_na=False)
    frame["label:MidlineShift"] = "0"
    frame.to_csv(tmp_path / "one_class.csv", index=False)
    assert main(["evaluate", str(run), "--data", str(tmp_path / "one_class.csv"), "--bootstrap", "100"]) == 0
    metrics = json.loads((run / "evaluations" / "one_class-test" / "metrics.json").read_text())
    assert metrics["labels"]["MidlineShift"]["auroc"] is None
    assert metrics["labels"]["MidlineShift"]["status"] == "n/a"
    assert metrics["mean"]["labels"] == ["ICH"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--split", "pretrain"], "no scan to evaluate; the manifest has"),
        (["--sites", "site_z"], "no scan to evaluate; the manifest has"),
        (["--cache", "missing"], "missing"),
    ],
)
def test_wrong_requests_are_three_lines_and_exit_2(
    run: Path, tiny: TinyCohort, capsys: pytest.CaptureFixture[str], more: list[str], expected: str
) -> None:
    assert evaluate(run, tiny, *more) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 3


def test_manifest_without_the_labels_is_refused(
    run: Path, tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.read_csv(tiny.manifest, dtype=str, keep_default_na=False)
    frame.drop(columns=["label:ICH", "label:MidlineShift"]).to_csv(tmp_path / "bare.csv", index=False)
    assert main(["evaluate", str(run), "--data", str(tmp_path / "bare.csv")]) == 2
    assert "none of the run's labels (ICH, MidlineShift)" in capsys.readouterr().err


def test_a_pretraining_run_has_nothing_to_evaluate(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        *("--data.manifest", str(tiny.manifest), "--data.cache", str(tiny.cache), "--input.voxels", "24"),
        *("--trainer.max_steps", "1", "--trainer.runs", str(tmp_path)),
    ]
    folder = fit(load_experiment([EXPERIMENTS / "pretrain_mae_smoke.yaml"], flags))
    assert main(["evaluate", str(folder), "--data", str(tiny.manifest)]) == 2
    assert "no classification head" in capsys.readouterr().err
