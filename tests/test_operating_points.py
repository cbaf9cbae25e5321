"""Thresholds come from validation scans, reach what they promise there, and hold for the scans evaluated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score, roc_curve

from fmct.evaluation.confidence import patient_weights
from fmct.evaluation.facts import Facts, with_facts
from fmct.evaluation.operating_points import Thresholds, find_thresholds, rates_at
from fmct.evaluation.summary import summarize


def predictions(n_patients: int, seed: int, series: int = 1, digits: int | None = None) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    target = np.repeat(np.arange(n_patients) % 3 == 0, series).astype(float)
    logit = 1.5 * target + generator.normal(size=len(target)) - 1
    probability = 1 / (1 + np.exp(-logit))
    return pd.DataFrame(
        {
            "scan_id": [f"s{seed}-{i:05d}" for i in range(len(target))],
            "patient_id": [f"p{seed}-{i // series:05d}" for i in range(len(target))],
            "label": "ICH",
            "target": target,
            "probability": probability if digits is None else probability.round(digits),
        }
    )


def with_thresholds(frame: pd.DataFrame, validation: pd.DataFrame) -> pd.DataFrame:
    found = Thresholds(
        manifest="m.csv",
        splits=("val",),
        sites=(),
        n_scans=len(validation),
        labels={"ICH": find_thresholds(validation)},
    )
    return with_facts(frame, Facts(thresholds=found))


@pytest.mark.parametrize("digits", [None, 2, 1])
@pytest.mark.parametrize("seed", range(3))
def test_thresholds_are_the_best_that_reach_the_rate(seed: int, digits: int | None) -> None:
    frame = predictions(120, seed, digits=digits)
    target, score = frame["target"].to_numpy(), frame["probability"].to_numpy()
    false_positive, sensitivity, _ = roc_curve(target, score, drop_intermediate=False)
    specificity = 1 - false_positive
    for one in find_thresholds(frame).found:
        called = (score >= one.threshold).astype(float)
        assert one.sensitivity == pytest.approx(recall_score(target, called), abs=1e-12)
        assert one.specificity == pytest.approx(recall_score(target, called, pos_label=0), abs=1e-12)
        if one.fixed == "specificity":
            assert one.specificity >= one.target - 1e-12
            assert one.sensitivity == pytest.approx(sensitivity[specificity >= one.target - 1e-12].max(), abs=1e-12)
        else:
            assert one.sensitivity >= one.target - 1e-12
            assert one.specificity == pytest.approx(specificity[sensitivity >= one.target - 1e-12].max(), abs=1e-12)
        assert one.threshold not in set(score)


def test_points_are_what_the_thresholds_do_to_other_scans() -> None:
    validation, test = predictions(150, 0), predictions(90, 1, series=2)
    label = summarize(with_thresholds(test, validation), bootstrap=100)["labels"]["ICH"]
    target, score = test["target"].to_numpy(), test["probability"].to_numpy()
    weights = np.concatenate(list(patient_weights(test["patient_id"], target, 100, seed=0)), axis=1)
    thresholds = find_thresholds(validation).found
    assert [(p["fixed"], p["target"]) for p in label["operating_points"]] == [
        (rate, aim) for rate in ("sensitivity", "specificity") for aim in (0.8, 0.9, 0.95)
    ]
    for point, one in zip(label["operating_points"], thresholds, strict=True):
        assert point["threshold"] == one.threshold
        called = (score >= one.threshold).astype(float)
        assert point["sensitivity"] == pytest.approx(recall_score(target, called), abs=1e-12)
        assert point["specificity"] == pytest.approx(recall_score(target, called, pos_label=0), abs=1e-12)
        drawn = [recall_score(target, called, sample_weight=w) for w in weights.T]
        assert point["sensitivity_ci"] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-9)
        drawn = [recall_score(target, called, sample_weight=w, pos_label=0) for w in weights.T]
        assert point["specificity_ci"] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-9)


def test_the_evaluated_scans_have_no_part_in_thresholds() -> None:
    validation = predictions(150, 0)
    one, other = (summarize(with_thresholds(predictions(90, seed), validation), bootstrap=100) for seed in (1, 2))
    cuts = [[point["threshold"] for point in s["labels"]["ICH"]["operating_points"]] for s in (one, other)]
    assert cuts[0] == cuts[1]
    assert one["labels"]["ICH"]["auroc"] != other["labels"]["ICH"]["auroc"]


def test_too_few_validation_scans_give_no_threshold() -> None:
    found = {
        (one.fixed, one.target): one for one in find_thresholds(predictions(24, 0)).found
    }  # 8 positive, 16 negative
    assert found["sensitivity", 0.8].threshold is not None
    assert found["sensitivity", 0.8].note == "rests on 8 patients with positive validation scans only"
    assert found["sensitivity", 0.9].threshold is None
    assert found["sensitivity", 0.9].reason == (
        "only 8 validation patients with positive scans; sensitivity 0.90 needs 10"
    )
    assert found["specificity", 0.9].threshold is not None
    assert found["specificity", 0.95].threshold is None
    series = {(one.fixed, one.target): one for one in find_thresholds(predictions(12, 0, series=9)).found}
    assert series["sensitivity", 0.8].reason.startswith(
        "only 4 validation patients"
    )  # scans of one patient don't count anew
    one_class = find_thresholds(predictions(300, 0).assign(target=0.0))
    assert {one.threshold for one in one_class.found} == {None}
    assert one_class.found[-1].reason == "no validation scan is positive"
    assert find_thresholds(predictions(75, 0, series=2)).found[0].note == ""
    label = summarize(with_thresholds(predictions(90, 1), predictions(24, 0)), bootstrap=100)["labels"]["ICH"]
    point = label["operating_points"][1]
    assert (point["status"], point["sensitivity"], point["sensitivity_ci"]) == ("n/a", None, None)
    assert "needs 10" in point["reason"]
    assert label["operating_points"][0]["note"].startswith("threshold rests on 8 patients")


def test_probabilities_that_do_not_tell_scans_apart_give_no_threshold() -> None:
    validation = predictions(150, 0).assign(probability=0.3)
    assert {one.threshold for one in find_thresholds(validation).found} == {None}
    assert "no threshold tells validation scans apart" in find_thresholds(validation).found[0].reason


def test_neighboring_floats_are_told_apart() -> None:
    frame = predictions(60, 0)
    frame["probability"] = np.where(frame["target"] == 1, np.nextafter(0.5, 1), 0.5)
    one = find_thresholds(frame).found[-1]
    assert (one.sensitivity, one.specificity) == (1.0, 1.0)
    rates = rates_at(np.array([one.threshold]), frame["target"].to_numpy(), frame["probability"].to_numpy())
    assert [float(rate[0]) for rate in rates] == [1.0, 1.0]


def test_a_label_with_one_class_has_no_points() -> None:
    test = predictions(90, 1).assign(target=0.0)
    assert summarize(with_thresholds(test, predictions(150, 0)))["labels"]["ICH"]["operating_points"] == []
