"""`fmct evaluate`: predictions from which every figure can be computed again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import TinyCohort, make_cohort
from sklearn.metrics import average_precision_score, roc_auc_score

from fmct.cli import main
from fmct.evaluate import SCAN_COLUMNS
from fmct.evaluation.operating_points import find_thresholds
from fmct.evaluation.predictions import read_predictions
from fmct.evaluation.summary import summarize
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
    assert {"scan_id", "patient_id", "label", "target", "probability", *SCAN_COLUMNS} <= set(predictions)
    for label, rows in predictions.groupby("label"):
        known = rows[rows["target"].notna()]
        expected = manifest.set_index("scan_id").loc[rows["scan_id"], f"label:{label}"]
        assert (rows["target"].isna().to_numpy() == (expected == "").to_numpy()).all()
        m = metrics["labels"][label]
        assert m["auroc"] == pytest.approx(roc_auc_score(known["target"], known["probability"]), abs=1e-12)
        assert m["ap"] == pytest.approx(average_precision_score(known["target"], known["probability"]), abs=1e-12)
        assert m["n_scans"] == len(known)
    assert metrics["labels"]["ICH"]["auroc"] > 0.9  # a bright block is easy
    assert (predictions.groupby("label")["scan_id"].nunique() == len(manifest)).all()  # each scan once
    out = capsys.readouterr().out
    assert "AUROC (95 % CI)" in out
    assert str(folder) in out
    assert max(len(line) for line in out.splitlines() if str(folder) not in line) <= 100
    assert summarize(read_predictions(folder / "predictions.parquet"), bootstrap=200) == metrics


@pytest.fixture(scope="module")
def wide(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TinyCohort]:
    """The same weights with 20 validation scans of 10 patients, as if trained beside them."""
    folder = tmp_path_factory.mktemp("wide")
    cohort = make_cohort(folder, scans=80)
    shutil.copytree(run, folder / "run", ignore=shutil.ignore_patterns("evaluations", "validation.parquet"))
    point_at(folder / "run", manifest=str(cohort.manifest), cache=str(cohort.cache))
    return folder / "run", cohort


def point_at(run: Path, **data: object) -> None:
    """Change the data section of a run's configuration."""
    experiment = yaml.safe_load((run / "experiment.yaml").read_text())
    experiment["data"] |= data
    (run / "experiment.yaml").write_text(yaml.safe_dump(experiment))


def metrics_of(run: Path, name: str) -> dict:
    return json.loads((run / "evaluations" / name / "metrics.json").read_text())


def test_thresholds_come_from_the_validation_scans_of_the_run(
    wide: tuple[Path, TinyCohort], capsys: pytest.CaptureFixture[str]
) -> None:
    run, cohort = wide
    assert evaluate(*wide) == 0
    out = capsys.readouterr().out
    assert "at thresholds fixed on 20 validation scans (split val of manifest.csv) for specificity 0.90" in out
    validation = read_predictions(run / "validation.parquet")
    assert set(validation["split"]) == {"val"}
    metrics = metrics_of(run, "manifest-test")
    found = metrics["thresholds"]
    assert (found["manifest"], found["splits"], found["reason"]) == (str(cohort.manifest), ["val"], "")
    expected = find_thresholds(validation[validation["label"] == "ICH"])
    assert found["labels"]["ICH"] == json.loads(expected.model_dump_json())
    assert (expected.n_positive, expected.n_negative, expected.n_positive_patients) == (10, 10, 10)
    points = {(p["fixed"], p["target"]): p for p in metrics["labels"]["ICH"]["operating_points"]}
    predictions = read_predictions(run / "evaluations" / "manifest-test" / "predictions.parquet")
    rows = predictions[predictions["label"] == "ICH"]
    called = rows["probability"] >= points["specificity", 0.9]["threshold"]
    assert points["specificity", 0.9]["sensitivity"] == called[rows["target"] == 1].mean()
    assert points["specificity", 0.95]["reason"] == (
        "only 10 validation patients with negative scans; specificity 0.95 needs 20"
    )
    assert summarize(predictions, bootstrap=200) == metrics


def test_validation_scans_are_predicted_again_only_when_something_changed(
    wide: tuple[Path, TinyCohort], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, cohort = wide
    evaluate(*wide)
    capsys.readouterr()
    evaluate(*wide, "--name", "again")
    assert "validation scans, batches" not in "".join(capsys.readouterr())
    frame = pd.read_csv(cohort.manifest, dtype=str, keep_default_na=False)
    frame.loc[frame["split"] == "val", "label:ICH"] = "0"
    frame.to_csv(tmp_path / "manifest.csv", index=False)
    other = shutil.copytree(run, tmp_path / "run")
    point_at(other, manifest=str(tmp_path / "manifest.csv"))
    evaluate(other, cohort, "--name", "relabeled")
    assert "20 validation scans, batches" in "".join(capsys.readouterr())
    assert metrics_of(other, "relabeled")["thresholds"]["labels"]["ICH"]["n_positive"] == 0


def test_evaluated_scans_never_set_their_own_thresholds(wide: tuple[Path, TinyCohort]) -> None:
    for split, patients in (("val", 10), ("val,test", 20), ("all", 40)):
        assert evaluate(*wide, "--split", split, "--name", "overlap") == 0
        metrics = metrics_of(wide[0], "overlap")
        assert metrics["labels"]["ICH"]["n_patients"] == patients
        assert metrics["thresholds"]["reason"].startswith(f"10 of {patients} evaluated patients are among")
        assert metrics["thresholds"]["labels"] == {}
        assert metrics["labels"]["ICH"]["operating_points"] == []


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("manifest", "gone.csv", "the run's validation scans can't be read: the manifest doesn't exist"),
        ("val_splits", [], "the run names no validation scans"),
        ("sites", ["site_z"], "no scan to evaluate; the manifest has"),
    ],
)
def test_without_validation_scans_there_is_a_reason(
    run: Path,
    tiny: TinyCohort,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    key: str,
    value: object,
    expected: str,
) -> None:
    moved = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluations", "validation.parquet"))
    point_at(moved, **{key: value})
    assert evaluate(moved, tiny, "--name", "alone", "--cache", str(tiny.cache)) == 0
    assert expected in metrics_of(moved, "alone")["thresholds"]["reason"]
    assert "no sensitivity or specificity" in capsys.readouterr().out


def test_what_is_not_wanted_is_left_out(run: Path, tiny: TinyCohort, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(run, tiny, "--no-thresholds", "--no-subgroups", "--name", "bare") == 0
    metrics = metrics_of(run, "bare")
    assert metrics["thresholds"] is metrics["subgroups"] is None
    out = capsys.readouterr().out
    assert "subgroups" not in out
    assert "threshold" not in out


def test_any_column_makes_subgroups(
    run: Path, tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.read_csv(tiny.manifest, dtype=str, keep_default_na=False)
    frame.assign(ward=np.where(np.arange(24) % 4 < 2, "north", "south")).to_csv(tmp_path / "m.csv", index=False)
    more = ["--split", "all", "--bootstrap", "100", "--subgroups-by"]
    assert main(["evaluate", str(run), "--data", str(tmp_path / "m.csv"), *more, "ward,site"]) == 0
    rows = [r for r in metrics_of(run, "m-all")["subgroups"]["rows"] if (r["label"], r["by"]) == ("ICH", "ward")]
    assert [(row["group"], row["n_scans"], row["n_positive"]) for row in rows] == [("north", 12, 6), ("south", 12, 6)]
    assert all(row["difference"] is not None for row in rows)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(tmp_path / "m.csv"), *more, "wards"]) == 2
    assert "did you mean ward?" in capsys.readouterr().err


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
