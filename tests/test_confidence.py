"""The bootstrap of patients against a plain loop, scipy, and simulated cohorts whose truth is known."""

from __future__ import annotations

from math import erf

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import average_precision_score, roc_auc_score

from fmct.console.errors import UsageError
from fmct.evaluation import confidence
from fmct.evaluation.comparison import paired_difference
from fmct.evaluation.confidence import patient_weights
from fmct.evaluation.summary import summarize


def clustered(n_patients: int, series: int, seed: int, separation: float = 1.0) -> pd.DataFrame:
    """`series` identical scans of each patient; the true AUROC is Phi(separation / sqrt 2)."""
    generator = np.random.default_rng(seed)
    target = np.repeat(np.arange(n_patients) % 3 == 0, series).astype(float)
    logit = np.repeat(generator.normal(size=n_patients), series) + separation * target
    return pd.DataFrame(
        {
            "scan_id": [f"s{i:05d}" for i in range(n_patients * series)],
            "patient_id": [f"p{i:05d}" for i in np.repeat(np.arange(n_patients), series)],
            "label": "ICH",
            "target": target,
            "probability": 1 / (1 + np.exp(-logit)),
        }
    )


def interval(frame: pd.DataFrame, metric: str = "auroc", **settings: float) -> tuple[float, float]:
    low, high = summarize(frame, **settings)["labels"]["ICH"][f"{metric}_ci"]
    return low, high


def test_every_replicate_draws_whole_patients_within_strata() -> None:
    patient = np.array(["a", "a", "b", "c", "c", "c", "d", "e"])
    target = np.array([0, 1, 1, 0, 0, 0, 0, 0.0])
    weights = np.concatenate(list(patient_weights(patient, target, 500, seed=0)), axis=1)
    assert weights.shape == (8, 500)
    assert (weights[0] == weights[1]).all()
    assert (weights[3] == weights[4]).all()
    assert (weights[[0, 2]].sum(axis=0) == 2).all()
    assert (weights[[3, 6, 7]].sum(axis=0) == 3).all()
    assert weights[3].mean() == pytest.approx(1, abs=0.15)
    assert len({tuple(column) for column in weights.T}) == 3 * 10  # all multisets of 2 of 2 and 3 of 3 occur


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = clustered(30, 2, seed=1)
    arguments = (frame["patient_id"].to_numpy(), frame["target"].to_numpy(), 50, 0)
    assert len(list(patient_weights(*arguments))) == 1
    monkeypatch.setattr(confidence, "WEIGHTS_AT_ONCE", 60 * 20)
    blocks = list(patient_weights(*arguments))
    assert [block.shape[1] for block in blocks] == [20, 20, 10]
    for block in blocks:
        assert (block[frame["target"] == 1].sum(axis=0) == 20).all()


@pytest.mark.parametrize("metric", ["auroc", "ap"])
def test_agrees_with_a_plain_loop_over_patients(metric: str) -> None:
    frame = clustered(60, 2, seed=2)
    frame["probability"] = (frame["probability"] + np.random.default_rng(0).random(120)) / 2
    generator = np.random.default_rng(9)
    scans_of = {patient: scans.index.to_numpy() for patient, scans in frame.groupby("patient_id")}
    positive = sorted(frame.loc[frame["target"] == 1, "patient_id"].unique())
    negative = sorted(set(scans_of) - set(positive))
    score = roc_auc_score if metric == "auroc" else average_precision_score
    values = []
    for _ in range(1000):
        drawn = [*generator.choice(positive, len(positive)), *generator.choice(negative, len(negative))]
        scans = np.concatenate([scans_of[patient] for patient in drawn])
        values.append(score(frame["target"][scans], frame["probability"][scans]))
    assert interval(frame, metric) == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.02)


def test_agrees_with_scipy_when_every_patient_has_one_scan() -> None:
    frame = clustered(150, 1, seed=3)
    positive, negative = (frame.loc[frame["target"] == value, "probability"].to_numpy() for value in (1, 0))

    def pair_order(positive: np.ndarray, negative: np.ndarray, axis: int = -1) -> np.ndarray:
        return (positive[..., :, None] > negative[..., None, :]).mean(axis=(-2, -1))

    expected = scipy_bootstrap(
        (positive, negative), pair_order, n_resamples=3000, method="percentile", batch=100, rng=np.random.default_rng(0)
    ).confidence_interval
    assert interval(frame, bootstrap=3000) == pytest.approx([expected.low, expected.high], abs=0.01)


@pytest.mark.parametrize("series", [2, 4, 9])
def test_identical_series_do_not_narrow_the_interval(series: int) -> None:
    frame = clustered(90, series, seed=4)
    by_patient = np.diff(interval(frame))[0]
    one_series_each = np.diff(interval(frame.iloc[::series]))[0]
    as_if_independent = np.diff(interval(frame.assign(patient_id=frame["scan_id"])))[0]
    assert by_patient == pytest.approx(one_series_each, abs=1e-12)
    assert by_patient / as_if_independent == pytest.approx(np.sqrt(series), rel=0.12)


def test_covers_the_truth_as_often_as_it_says() -> None:
    truth = 0.5 * (1 + erf(1.0 / 2))  # Phi(1 / sqrt 2)
    covered, covered_if_scans_counted = 0, 0
    cohorts = 200
    for seed in range(cohorts):
        frame = clustered(80, 4, seed=100 + seed)
        low, high = interval(frame, bootstrap=400)
        covered += low <= truth <= high
        low, high = interval(frame.assign(patient_id=frame["scan_id"]), bootstrap=400)
        covered_if_scans_counted += low <= truth <= high
    assert 0.90 <= covered / cohorts <= 0.99
    assert covered_if_scans_counted / cohorts < 0.80


def test_confidence_widens_the_interval() -> None:
    frame = clustered(60, 1, seed=5)
    narrow, wide = interval(frame, confidence=0.8), interval(frame, confidence=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_intervals_that_would_mislead_are_withheld_or_noted() -> None:
    perfect = clustered(30, 1, seed=6)
    perfect["probability"] = perfect["target"] * 0.5 + 0.25
    label = summarize(perfect)["labels"]["ICH"]
    assert label["auroc"] == 1.0
    assert label["auroc_ci"] is None
    assert "spread is unknown" in label["note"]

    one_patient = clustered(30, 3, seed=7)
    one_patient.loc[one_patient["patient_id"] != "p00000", "target"] = 0
    label = summarize(one_patient)["labels"]["ICH"]
    assert label["n_positive"] == 3
    assert label["n_positive_patients"] == 1
    assert label["auroc"] is not None
    assert label["auroc_ci"] is None
    assert label["note"] == "no interval: only 1 patient with positive scans"

    few = summarize(clustered(12, 1, seed=8))["labels"]["ICH"]
    assert few["n_positive_patients"] == 4
    assert few["auroc_ci"] is None
    assert few["note"] == "no interval: only 4 patients with positive scans"

    some = summarize(clustered(15, 1, seed=8))["labels"]["ICH"]
    assert some["auroc_ci"] is not None
    assert "only 5 patients with positive scans" in some["note"]
    assert summarize(clustered(60, 1, seed=8))["labels"]["ICH"]["note"] == ""


def test_patients_with_both_kinds_of_scans_only() -> None:
    frame = clustered(40, 1, seed=9).assign(patient_id=lambda scans: [f"p{i // 4}" for i in range(len(scans))])
    frame = pd.concat([frame, frame.iloc[:2].assign(scan_id=["x", "y"], patient_id="z", target=[1.0, 0.0])])
    label = summarize(frame)["labels"]["ICH"]
    assert label["n_positive_patients"] == label["n_patients"] == 11
    assert label["auroc_ci"][0] < label["auroc"] < label["auroc_ci"][1]


def two_runs(noise_scale: float = 1.2) -> tuple[pd.DataFrame, pd.DataFrame]:
    better = clustered(80, 2, seed=10, separation=2.0)
    noise = np.random.default_rng(11).normal(scale=noise_scale, size=80).repeat(2)
    logit = np.log(better["probability"] / (1 - better["probability"])) + noise
    return better, better.assign(probability=1 / (1 + np.exp(-logit)))


@pytest.mark.parametrize("metric", ["auroc", "ap"])
def test_paired_difference_agrees_with_a_plain_loop(metric: str) -> None:
    a, b = two_runs()
    result = paired_difference(a, b.sample(frac=1, random_state=0), metric, bootstrap=500)["ICH"]
    score = roc_auc_score if metric == "auroc" else average_precision_score
    values = []
    for weights in np.concatenate(list(patient_weights(a["patient_id"], a["target"], 500, seed=0)), axis=1).T.astype(
        int
    ):
        scans = np.repeat(np.arange(len(a)), weights)
        values.append(
            score(a["target"][scans], a["probability"][scans]) - score(b["target"][scans], b["probability"][scans])
        )
    assert result.ci == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=1e-12)
    expected = score(a["target"], a["probability"]) - score(b["target"], b["probability"])
    assert result.difference == pytest.approx(expected, abs=1e-12)
    assert result.verdict == "higher"
    assert paired_difference(b, a, metric)["ICH"].verdict == "lower"
    assert (result.n_scans, result.n_patients) == (160, 80)


def test_pairing_narrows_the_difference() -> None:
    a, b = two_runs(noise_scale=0.4)
    paired = np.diff(paired_difference(a, b)["ICH"].ci)[0]
    separate = np.hypot(np.diff(interval(a))[0], np.diff(interval(b))[0])
    assert paired < 0.9 * separate


def test_same_predictions_do_not_differ() -> None:
    a, _ = two_runs()
    result = paired_difference(a, a)["ICH"]
    assert result.difference == 0
    assert result.verdict == "undecided"


def test_different_scans_targets_patients_or_labels_are_not_compared() -> None:
    a, b = two_runs()
    with pytest.raises(UsageError, match="3 are in the first run only, 5 in the second only"):
        paired_difference(a.iloc[5:], b.iloc[:-3])
    with pytest.raises(UsageError, match="target differs between the runs for 2 of 160"):
        paired_difference(a, b.assign(target=b["target"].where(b.index >= 2, 1 - b["target"])))
    with pytest.raises(UsageError, match="patient_id differs"):
        paired_difference(a, b.assign(patient_id=b["scan_id"]))
    with pytest.raises(UsageError, match="no label in common"):
        paired_difference(a, b.assign(label="SDH"))


def test_too_few_patients_never_win() -> None:
    a = clustered(60, 1, seed=12)
    few = a[(a["target"] == 0) | (a["scan_id"] < "s00012")]
    b = few.assign(probability=few["probability"] * (1 - few["target"]))
    result = paired_difference(few, b)["ICH"]
    assert result.n_positive == 4
    assert result.difference is not None
    assert result.difference > 0.3
    assert result.ci is None
    assert result.verdict == "undecided"


def test_one_class_has_no_difference() -> None:
    a, b = two_runs()
    result = paired_difference(a.assign(target=0), b.assign(target=0))["ICH"]
    assert result.verdict == "n/a"
    assert result.difference is None
    assert result.reason == "only one class among 160 scans (all negative)"
