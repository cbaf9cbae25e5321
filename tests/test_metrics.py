"""AUROC and average precision against scikit-learn; metrics.json keeps undefined values undefined."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from fmct.console.errors import UsageError
from fmct.evaluation.facts import EvaluatedData, Facts, facts_of, with_facts
from fmct.evaluation.metrics import Ranking, auroc, average_precision
from fmct.evaluation.predictions import check_predictions, read_predictions, write_predictions
from fmct.evaluation.summary import Metrics, read_metrics, summarize
from fmct.evaluation.validation import without_thresholds


def cohort(n_scans: int, ties: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    target = (generator.random(n_scans) < 0.3).astype(float)
    target[:2] = 0, 1
    score = 1 / (1 + np.exp(-generator.normal(target)))
    return target, score if ties is None else np.round(score * ties) / ties


def rows(label: str, target: list[float | None], probability: list[float], series_per_patient: int = 1) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "scan_id": [f"scan{i:03d}" for i in range(len(target))],
            "patient_id": [f"patient{i // series_per_patient:03d}" for i in range(len(target))],
            "label": label,
            "target": pd.Series(target, dtype=float),
            "probability": probability,
            "split": "test",
        }
    )


@pytest.mark.parametrize("ties", [None, 20, 3, 1])
@pytest.mark.parametrize("n_scans", [2, 7, 300])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_scikit_learn(n_scans: int, ties: int | None, seed: int) -> None:
    target, score = cohort(n_scans, ties, seed)
    assert auroc(target, score) == pytest.approx(roc_auc_score(target, score), abs=1e-12)
    assert average_precision(target, score) == pytest.approx(average_precision_score(target, score), abs=1e-12)


@pytest.mark.parametrize("ties", [None, 8])
def test_weights_are_repetitions(ties: int | None) -> None:
    target, score = cohort(120, ties, seed=5)
    weights = np.random.default_rng(0).integers(0, 4, size=(120, 25)).astype(float)
    ranking = Ranking.of(target, score)
    for replicate in range(25):
        repeated = np.repeat(np.arange(120), weights[:, replicate].astype(int))
        expected = roc_auc_score(target[repeated], score[repeated])
        assert ranking.auroc(weights)[replicate] == pytest.approx(expected, abs=1e-12)
        expected = average_precision_score(target[repeated], score[repeated])
        assert ranking.ap(weights)[replicate] == pytest.approx(expected, abs=1e-12)


def test_known_values() -> None:
    assert auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75
    assert average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == pytest.approx((1 + 2 / 3) / 2)
    assert auroc([0, 1], [0.5, 0.5]) == 0.5


@pytest.mark.parametrize("target", [[0, 0, 0], [1, 1, 1]])
def test_one_class_has_no_value(target: list[int]) -> None:
    assert auroc(target, [0.1, 0.2, 0.3]) is None
    assert average_precision(target, [0.1, 0.2, 0.3]) is None


@pytest.mark.parametrize(
    ("target", "score"),
    [([0, 1, 2], [0.1, 0.2, 0.3]), ([0, 1], [0.1, np.nan]), ([0, 1], [0.1]), ([0, np.nan], [0.1, 0.2])],
)
def test_refuses_what_it_cannot_rank(target: list[float], score: list[float]) -> None:
    with pytest.raises(ValueError, match=r"targets|scores|score"):
        auroc(target, score)


def test_undefined_labels_are_null_with_a_reason_and_outside_the_mean() -> None:
    target, score = cohort(40, None, seed=3)
    frame = pd.concat(
        [
            rows("ICH", list(target), list(score)),
            rows("EDH", [0.0] * 14, [0.4] * 14),
            rows("ADRD", [None] * 5, [0.4] * 5),
        ]
    )
    summary = summarize(frame, bootstrap=200)
    assert summary["labels"]["EDH"]["auroc"] is None
    assert summary["labels"]["EDH"]["status"] == "n/a"
    assert summary["labels"]["EDH"]["reason"] == "only one class among 14 scans (all negative)"
    assert summary["labels"]["EDH"]["prevalence"] == 0.0
    assert summary["labels"]["ADRD"]["reason"] == "no scan has a known target"
    assert summary["labels"]["ADRD"]["prevalence"] is None
    assert summary["labels"]["ADRD"]["n_unknown"] == 5
    assert summary["mean"]["labels"] == ["ICH"]
    assert summary["mean"]["left_out"] == ["EDH", "ADRD"]
    assert summary["mean"]["auroc"] == pytest.approx(roc_auc_score(target, score), abs=1e-12)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_unknown_targets_are_masked() -> None:
    target, score = cohort(60, 10, seed=4)
    with_unknown = [None if i % 5 == 0 else value for i, value in enumerate(target)]
    known = [i for i in range(60) if i % 5]
    label = summarize(rows("SDH", with_unknown, list(score), series_per_patient=3), bootstrap=200)["labels"]["SDH"]
    assert label["auroc"] == pytest.approx(roc_auc_score(target[known], score[known]), abs=1e-12)
    assert label["ap"] == pytest.approx(average_precision_score(target[known], score[known]), abs=1e-12)
    assert (label["n_scans"], label["n_unknown"], label["n_patients"]) == (48, 12, 20)
    assert label["n_positive"] == target[known].sum()
    assert label["prevalence"] == pytest.approx(target[known].mean())


def test_summary_is_a_function_of_the_rows_not_of_their_order() -> None:
    target, score = cohort(80, 10, seed=6)
    frame = rows("IPH", list(target), list(score), series_per_patient=2)
    once = summarize(frame, bootstrap=300, seed=1)
    assert once == summarize(frame.sample(frac=1, random_state=0), bootstrap=300, seed=1)
    assert once["labels"]["IPH"]["auroc_ci"] != summarize(frame, bootstrap=300, seed=2)["labels"]["IPH"]["auroc_ci"]
    assert once["settings"]["seed"] == 1
    assert once["settings"]["unit"] == "patient"


def test_predictions_round_trip(tmp_path: Path) -> None:
    frame = rows("ICH", [1, 0, None], [0.9, 0.1, 0.5]).assign(scan_id=["00123", "7", "scan"], site="site_b")
    write_predictions(frame, tmp_path / "evaluations" / "predictions.parquet")
    read = read_predictions(tmp_path / "evaluations" / "predictions.parquet")
    assert read["scan_id"].tolist() == ["00123", "7", "scan"]
    assert read["probability"].dtype == np.float64
    assert read["target"].tolist()[:2] == [1.0, 0.0]
    assert np.isnan(read["target"][2])
    assert read["site"].tolist() == ["site_b"] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="probability"), "no column probability"),
        (lambda frame: frame.rename(columns={"target": "targets"}), "nearest column is targets"),
        (lambda frame: frame.iloc[:0], "hold no row"),
        (lambda frame: frame.assign(probability=[0.2, 1.2, 0.1]), "probability isn't a number from 0 to 1 in 1 of 3"),
        (lambda frame: frame.assign(probability=[0.2, np.nan, 0.1]), "scan 'scan001'"),
        (lambda frame: frame.assign(target=[0, 1, 0.5]), "target isn't 0, 1 or missing"),
        (lambda frame: frame.assign(target=["0", "1", "maybe"]), "target isn't 0, 1 or missing"),
        (lambda frame: frame.assign(scan_id="same"), "occurs twice"),
        (lambda frame: frame.assign(patient_id=["a", None, "b"]), "patient_id is empty"),
        (lambda frame: frame.assign(label=["x", "y", "x"], scan_id=["s", "s", "t"]), "two patients"),
    ],
)
def test_predictions_that_break_the_schema_are_refused(
    change: Callable[[pd.DataFrame], pd.DataFrame], message: str, tmp_path: Path
) -> None:
    frame = change(rows("ICH", [1, 0, 1], [0.9, 0.1, 0.5]))
    with pytest.raises(UsageError, match=message):
        check_predictions(frame, "here")
    with pytest.raises(UsageError):
        write_predictions(frame, tmp_path / "predictions.parquet")
    assert not list(tmp_path.iterdir())


def test_files_that_are_not_predictions_or_metrics_are_refused(tmp_path: Path) -> None:
    (tmp_path / "predictions.parquet").write_text("scan_id,label")
    (tmp_path / "metrics.json").write_text('{"labels": {"ICH": {"n_scans": 3}}}')
    with pytest.raises(UsageError, match="not a readable Parquet"):
        read_predictions(tmp_path / "predictions.parquet")
    with pytest.raises(UsageError, match=r"labels\.ICH"):
        read_metrics(tmp_path / "metrics.json")
    with pytest.raises(UsageError, match="doesn't exist"):
        read_metrics(tmp_path / "metric.json")


def test_metrics_file_keeps_what_an_evaluation_adds(tmp_path: Path) -> None:
    summary = summarize(rows("ICH", [1, 0, 1, 0], [0.9, 0.1, 0.5, 0.6]), bootstrap=100)
    (tmp_path / "metrics.json").write_text(json.dumps({**summary, "manifest": "site_b.csv"}))
    metrics = read_metrics(tmp_path / "metrics.json")
    assert isinstance(metrics, Metrics)
    assert metrics.model_dump(mode="json") == {**summary, "manifest": "site_b.csv"}


def test_metrics_of_earlier_versions_are_still_read(tmp_path: Path) -> None:
    target, score = cohort(60, None, seed=1)
    summary = summarize(rows("ICH", list(target), list(score)), bootstrap=100)
    for key in ("data", "thresholds", "subgroups"):
        del summary[key]
    for key in ("calibration", "operating_points"):
        del summary["labels"]["ICH"][key]
    (tmp_path / "metrics.json").write_text(json.dumps(summary))
    read = read_metrics(tmp_path / "metrics.json")
    assert read.labels["ICH"].auroc == summary["labels"]["ICH"]["auroc"]
    assert read.labels["ICH"].calibration is read.subgroups is read.thresholds is None


def test_predictions_files_keep_what_an_evaluation_recorded(tmp_path: Path) -> None:
    frame = rows("ICH", [1, 0, 1, 0], [0.9, 0.1, 0.5, 0.6])
    data = EvaluatedData(manifest="m.csv", split="test", sites=("a",))
    facts = Facts(data=data, thresholds=without_thresholds(None, "nobody looked"), subgroups=("site",))
    write_predictions(with_facts(frame, facts), tmp_path / "p.parquet")
    read = read_predictions(tmp_path / "p.parquet")
    assert facts_of(read) == facts
    summary = summarize(read, bootstrap=100)
    assert summary["data"] == {"manifest": "m.csv", "split": "test", "sites": ["a"]}
    assert summary["thresholds"]["reason"] == "nobody looked"
    assert facts_of(frame) == Facts()
    frame.attrs = {"fmct.evaluation": {"threshold": 0.5}}
    with pytest.raises(UsageError, match="isn't laid out as this version does"):
        summarize(frame)
