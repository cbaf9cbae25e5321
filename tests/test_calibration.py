"""Brier score, calibration error and recalibration line against scikit-learn and plain loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from fmct.evaluation.calibration import Calibration
from fmct.evaluation.calibration_error import calibration_error, equal_mass_bins, mean_square_error
from fmct.evaluation.confidence import patient_weights
from fmct.evaluation.summary import summarize


def cohort(patients: int, seed: int, slope: float = 1.0, shift: float = 0.0, series: int = 2) -> pd.DataFrame:
    """Two like scans of each patient; the stated logit is `shift + slope *` the true one."""
    generator = np.random.default_rng(seed)
    truth = -1.0 + 1.3 * generator.normal(size=patients)
    target = np.repeat((generator.random(patients) < expit(truth)).astype(float), series)
    return pd.DataFrame(
        {
            "scan_id": [f"s{i:05d}" for i in range(patients * series)],
            "patient_id": [f"p{i:05d}" for i in np.repeat(np.arange(patients), series)],
            "label": "ICH",
            "target": target,
            "probability": expit(shift + slope * np.repeat(truth, series)),
        }
    )


def of(frame: pd.DataFrame, **settings: int) -> dict:
    return summarize(frame, **settings)["labels"]["ICH"]["calibration"]


def line_by_scikit_learn(target: np.ndarray, probability: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(probability)[:, None], target, weights)
    return np.array([fit.intercept_[0], fit.coef_[0, 0]])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [None, 10])
@pytest.mark.parametrize("n_scans", [3, 40, 500])
def test_brier_score_agrees_with_scikit_learn(n_scans: int, ties: int | None, seed: int) -> None:
    generator = np.random.default_rng(seed)
    target = (generator.random(n_scans) < 0.1).astype(float)
    target[:2] = 0, 1
    probability = generator.random(n_scans)
    probability = probability if ties is None else np.round(probability * ties) / ties
    frame = cohort(n_scans, 0, series=1).assign(target=target, probability=probability)
    found = of(frame, bootstrap=100)
    assert found["brier"] == pytest.approx(brier_score_loss(target, probability), abs=1e-12)
    reference = brier_score_loss(target, np.full(n_scans, target.mean()))
    assert found["brier_skill"] == pytest.approx(1 - found["brier"] / reference, abs=1e-12)


def test_reliability_curve_agrees_with_scikit_learn() -> None:
    frame = cohort(100, 1).assign(probability=np.random.default_rng(0).random(200))
    observed, predicted = calibration_curve(frame["target"], frame["probability"], n_bins=10, strategy="quantile")
    found = of(frame, bootstrap=100)
    assert [point["observed"] for point in found["curve"]] == pytest.approx(observed, abs=1e-12)
    assert [point["predicted"] for point in found["curve"]] == pytest.approx(predicted, abs=1e-12)
    assert [point["n_scans"] for point in found["curve"]] == [20] * 10
    assert found["n_bins"] == 10
    assert found["ece"] == pytest.approx(np.abs(observed - predicted).mean(), abs=1e-12)


def test_bins_are_of_equal_mass_and_ties_stay_together() -> None:
    probability = np.random.default_rng(0).random(1003)
    counts = np.bincount(equal_mass_bins(probability))
    assert len(counts) == 10
    assert counts.max() - counts.min() <= 1
    tied = np.repeat([0.1, 0.2, 0.9], [700, 200, 100])
    assert np.bincount(equal_mass_bins(tied)).tolist() == [700, 200, 100]
    assert equal_mass_bins(np.full(50, 0.5)).tolist() == [0] * 50
    assert equal_mass_bins(np.array([0.3, 0.1, 0.2])).tolist() == [0, 0, 0]  # too few to be divided
    assert equal_mass_bins(probability[:39]).max() == 2


def test_line_agrees_with_scikit_learn_and_finds_the_truth() -> None:
    frame = cohort(4000, 2, slope=2.0, shift=0.7)
    target, probability = frame["target"].to_numpy(), frame["probability"].to_numpy()
    found = of(frame, bootstrap=100)
    assert found["slope"] == pytest.approx(line_by_scikit_learn(target, probability)[1], abs=1e-5)
    assert found["slope"] == pytest.approx(0.5, abs=0.04)
    assert expit(found["intercept"] + logit(probability)).mean() == pytest.approx(target.mean(), abs=1e-10)
    assert found["slope_ci"][0] < 0.5 < found["slope_ci"][1]
    right = of(cohort(4000, 3), bootstrap=200)
    assert right["slope_ci"][0] < 1 < right["slope_ci"][1]
    assert right["intercept_ci"][0] < 0 < right["intercept_ci"][1]
    assert right["rmsce"] < 0.03 < of(cohort(4000, 3, shift=1.0), bootstrap=200)["rmsce_ci"][0]


def test_one_newton_step_is_as_good_as_fitting_every_replicate() -> None:
    frame = cohort(500, 4, slope=1.5)
    target, probability = frame["target"].to_numpy(), frame["probability"].to_numpy()
    weights = next(patient_weights(frame["patient_id"], np.zeros(1000), 200, seed=0))
    prepared = Calibration.of(target, probability)
    slopes = prepared.recalibration(prepared.terms @ weights)[1]
    fitted = np.array([line_by_scikit_learn(target, probability, column)[1] for column in weights.T])
    assert np.corrcoef(slopes, fitted)[0, 1] > 0.98
    assert np.quantile(slopes, [0.025, 0.975]) == pytest.approx(np.quantile(fitted, [0.025, 0.975]), abs=0.03)


def test_intervals_agree_with_a_plain_loop_over_patients() -> None:
    frame = cohort(60, 5)
    of_patient = dict(tuple(frame.groupby("patient_id")))
    generator, scores, shares = np.random.default_rng(0), [], []
    for _ in range(1000):
        drawn = pd.concat([of_patient[one] for one in generator.choice(sorted(of_patient), len(of_patient))])
        scores.append(brier_score_loss(drawn["target"], drawn["probability"]))
        shares.append(drawn["target"].mean())
    assert of(frame)["brier_ci"] == pytest.approx(np.quantile(scores, [0.025, 0.975]), abs=0.006)
    one_bin = of(frame.assign(probability=0.3))["curve"][0]
    assert one_bin["observed_ci"] == pytest.approx(np.quantile(shares, [0.025, 0.975]), abs=0.03)


def test_identical_series_do_not_narrow_intervals() -> None:
    frame = cohort(100, 6, series=4)
    whole, single = of(frame), of(frame.iloc[::4])
    for name in ("brier_ci", "intercept_ci", "slope_ci"):
        assert np.diff(whole[name]) == pytest.approx(np.diff(single[name]), abs=1e-9)
    independent = of(frame.assign(patient_id=frame["scan_id"]))
    assert np.diff(whole["brier_ci"]) / np.diff(independent["brier_ci"]) == pytest.approx(2, rel=0.15)


def test_noise_is_taken_off_the_calibration_error() -> None:
    generator = np.random.default_rng(0)
    noise = np.full(10, 0.02)
    for gap in (0.0, 0.01, 0.1):
        signs = np.where(np.arange(10) % 2, 1, -1)
        samples = [gap * signs + noise * generator.normal(size=10) for _ in range(4000)]
        plain, debiased = np.mean([calibration_error(one, noise) for one in samples], axis=0)
        truth = 10 * gap
        assert abs(debiased - truth) < 0.5 * abs(plain - truth) or abs(plain - truth) < 0.002
        squares = mean_square_error(np.array(samples).T, noise, np.full(10, 0.1), 1)
        assert squares.mean() == pytest.approx(100 * gap**2, abs=0.001)


def test_covers_no_error_where_there_is_none() -> None:
    covered = [of(cohort(100, seed), bootstrap=200)["rmsce_ci"][0] == 0 for seed in range(60)]
    assert np.mean(covered) > 0.9


def test_what_is_undefined_is_none() -> None:
    apart = cohort(40, 7)
    apart["probability"] = 0.2 + 0.6 * apart["target"]
    found = of(apart, bootstrap=100)
    assert (found["slope"], found["slope_ci"]) == (None, None)
    assert "don't overlap" in found["note"]
    same = of(apart.assign(probability=0.4), bootstrap=100)
    assert same["slope"] is None
    assert same["n_bins"] == 1
    certain = of(apart.assign(probability=np.where(np.arange(80) % 3, apart["target"], 1 - apart["target"])))
    assert np.isfinite([certain["slope"], certain["intercept"], *certain["intercept_ci"]]).all()
    few = of(cohort(12, 8), bootstrap=100)
    assert few["brier_ci"] is few["slope_ci"] is few["rmsce"] is few["ece_debiased"] is None
    assert few["ece"] is not None
    assert "no interval" in few["note"]
    one_class = summarize(apart.assign(target=0.0))
    assert one_class["labels"]["ICH"]["calibration"] is None
