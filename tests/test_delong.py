"""DeLong's test against a published example, plain loops over the papers' formulas, and simulated equal models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from fmct.evaluation.comparison import holm, paired_difference
from fmct.evaluation.delong import CLUSTERED, PLAIN, Influence, Placements, covariance, paired_test

OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""
"""Albumin, total protein, K-G score (lower is better) and outcome: the data of DeLong et al. 1988, as the SAS/STAT
manual prints them in its example of comparing ROC curves."""


def ovarian() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    albumin, protein, score, target = np.array(OVARIAN.split(), dtype=float).reshape(-1, 4).T
    return target, {"albumin": albumin, "protein": protein, "K-G score": 10 - score}


def cohort(patients: int, series: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Target, two scores with ties and a patient for each scan; some patients have scans of both classes."""
    generator = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), series)
    target = ((patient % 3 == 0) ^ (generator.random(len(patient)) < 0.1)).astype(float)
    common = generator.normal(size=patients)[patient]
    a, b = (np.round(common + 0.7 * generator.normal(size=len(patient)) + target, 1) for _ in range(2))
    return target, a, b, np.array([f"p{i}" for i in patient], dtype=object)


def order(positive: float, negative: float) -> float:
    return 1.0 if positive > negative else 0.5 if positive == negative else 0.0


def plain_covariance(target: np.ndarray, scores: list[np.ndarray]) -> np.ndarray:
    """DeLong et al. 1988, pair by pair."""
    of_positives, of_negatives = [], []
    for score in scores:
        positives, negatives = score[target == 1], score[target == 0]
        kernel = np.array([[order(p, n) for n in negatives] for p in positives])
        of_positives.append(kernel.mean(axis=1))
        of_negatives.append(kernel.mean(axis=0))
    return np.cov(of_positives) / len(of_positives[0]) + np.cov(of_negatives) / len(of_negatives[0])


def clustered_variance(target: np.ndarray, a: np.ndarray, b: np.ndarray, patient: np.ndarray) -> float:
    """Obuchowski 1997, for the difference of two AUROCs, cluster by cluster."""
    m, n = int(target.sum()), int((1 - target).sum())
    parts = {}
    for score in (a, b):
        positives, negatives = score[target == 1], score[target == 0]
        auroc = np.mean([order(p, q) for p in positives for q in negatives])
        for one in set(patient):
            mine = patient == one
            x = [np.mean([order(p, q) for q in negatives]) for p in score[mine & (target == 1)]]
            y = [np.mean([order(p, q) for p in positives]) for q in score[mine & (target == 0)]]
            parts[id(score), one] = (sum(x) - len(x) * auroc, sum(y) - len(y) * auroc, len(x), len(y))

    def entry(r: np.ndarray, s: np.ndarray) -> float:
        pairs = [(parts[id(r), one], parts[id(s), one]) for one in set(patient)]
        with_positive, with_negative = sum(p[0][2] > 0 for p in pairs), sum(p[0][3] > 0 for p in pairs)
        s10 = with_positive / ((with_positive - 1) * m) * sum(p[0] * q[0] for p, q in pairs)
        s01 = with_negative / ((with_negative - 1) * n) * sum(p[1] * q[1] for p, q in pairs)
        s11 = len(pairs) / (len(pairs) - 1) * np.array([[p[0] * q[1], q[0] * p[1]] for p, q in pairs]).sum()
        return s10 / m + s01 / n + s11 / (m * n)

    return entry(a, a) + entry(b, b) - 2 * entry(a, b)


def test_published_example() -> None:
    target, scores = ovarian()
    assert (len(target), target.sum()) == (43, 31)
    patient = np.arange(43)
    for name, auroc, se in (("protein", 0.6478, 0.1000), ("K-G score", 0.7258, 0.1028)):
        placed = Placements.of(target, scores[name])
        assert placed.auroc == pytest.approx(auroc, abs=5e-5)
        assert np.sqrt(Influence.of(placed.of_scans, target, patient, 43).variance) == pytest.approx(se, abs=5e-5)
    test = paired_test(target, scores["protein"], scores["K-G score"], patient)
    assert test.method == PLAIN
    assert test.difference == pytest.approx(-0.0780, abs=5e-5)
    assert test.se == pytest.approx(0.1046, abs=5e-5)
    assert test.z is not None
    assert test.z**2 == pytest.approx(0.5554, abs=1e-4)
    assert test.p == pytest.approx(0.4561, abs=1e-4)
    assert test.ci == pytest.approx((-0.2830, 0.1271), abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_one_scan_each_is_the_plain_test(seed: int) -> None:
    target, a, b, _ = cohort(40, 1, seed)
    test = paired_test(target, a, b, [f"{i:02d}" for i in range(40)][::-1])
    expected = plain_covariance(target, [a, b])
    variance = expected[0, 0] + expected[1, 1] - 2 * expected[0, 1]
    assert test.difference == pytest.approx(roc_auc_score(target, a) - roc_auc_score(target, b), abs=1e-12)
    assert test.se == pytest.approx(np.sqrt(variance), abs=1e-12)
    assert test.z == pytest.approx(test.difference / np.sqrt(variance), abs=1e-9)
    assert test.p == pytest.approx(2 * norm.cdf(-abs(test.difference) / np.sqrt(variance)), abs=1e-12)
    assert test.method == PLAIN


@pytest.mark.parametrize("seed", range(3))
def test_several_scans_each_are_clustered(seed: int) -> None:
    target, a, b, patient = cohort(20, 3, seed)
    both = [len(set(target[patient == one])) == 2 for one in set(patient)]
    assert any(both)
    test = paired_test(target, a, b, patient)
    assert test.method == CLUSTERED
    assert test.se == pytest.approx(np.sqrt(clustered_variance(target, a, b, patient)), abs=1e-12)


def test_copies_of_a_scan_change_nothing() -> None:
    target, a, b, patient = cohort(30, 1, seed=5)
    once = paired_test(target, a, b, patient)
    twice = paired_test(np.repeat(target, 2), np.repeat(a, 2), np.repeat(b, 2), np.repeat(patient, 2))
    assert twice.se == pytest.approx(once.se, abs=1e-12)
    assert twice.p == pytest.approx(once.p, abs=1e-12)
    independent = paired_test(np.repeat(target, 2), np.repeat(a, 2), np.repeat(b, 2), np.arange(60))
    assert independent.se == pytest.approx(once.se / np.sqrt(2), rel=0.05)


def test_equal_models_differ_in_five_of_a_hundred() -> None:
    cohorts, clustered, plain = 600, 0, 0
    for seed in range(cohorts):
        generator = np.random.default_rng(seed)
        patient = np.repeat(np.arange(80), 3)
        target = (patient % 4 == 0).astype(float)
        a, b = (generator.normal(size=80)[patient] + 0.4 * generator.normal(size=240) + target for _ in range(2))
        clustered += paired_test(target, a, b, patient).p < 0.05
        plain += paired_test(target, a, b, np.arange(240)).p < 0.05
    assert 0.03 <= clustered / cohorts <= 0.075
    assert plain / cohorts > 0.15


def test_covariance_of_two_parts_is_seen_in_simulations() -> None:
    pairs = []
    expected = []
    for seed in range(400):
        generator = np.random.default_rng(seed)
        patient = np.tile(np.arange(60), 2)
        part = np.repeat([0, 1], 60)
        target = (patient % 2 == 0).astype(float)
        score = generator.normal(size=60)[patient] + 0.3 * generator.normal(size=120) + target
        found = []
        for one in (0, 1):
            placed = Placements.of(target[part == one], score[part == one])
            found.append((placed.auroc, Influence.of(placed.of_scans, target[part == one], patient[part == one], 60)))
        pairs.append([found[0][0], found[1][0]])
        expected.append(covariance(found[0][1], found[1][1]))
    assert np.mean(expected) == pytest.approx(np.cov(np.array(pairs).T)[0, 1], rel=0.15)


def test_what_cannot_be_tested_has_no_p() -> None:
    target, a, b, patient = cohort(30, 1, seed=6)
    same = paired_test(target, a, a, patient)
    assert (same.difference, same.se, same.p, same.ci) == (0.0, 0.0, None, None)
    one_patient = paired_test(target, a, b, np.where(target == 1, "one", patient))
    assert (one_patient.se, one_patient.p) == (None, None)


def predictions(target: np.ndarray, score: np.ndarray, patient: np.ndarray, label: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "scan_id": [f"s{i}" for i in range(len(target))],
            "patient_id": patient,
            "label": label,
            "target": target,
            "probability": 1 / (1 + np.exp(-score)),
        }
    )


def test_comparison_states_test_and_correction() -> None:
    frames_a, frames_b = [], []
    for seed, label in enumerate(("ICH", "SDH", "EDH")):
        target, a, b, patient = cohort(60, 2, seed=seed)
        if label == "EDH":
            target[:] = 0
        frames_a.append(predictions(target, a + 0.5 * target, patient, label))
        frames_b.append(predictions(target, b, patient, label))
    a, b = pd.concat(frames_a), pd.concat(frames_b)
    found = paired_difference(a, b, bootstrap=200)
    p = [found[label].p for label in ("ICH", "SDH")]
    assert found["ICH"].test == CLUSTERED
    assert [found[label].p_holm for label in ("ICH", "SDH")] == holm(p)
    assert (found["EDH"].p, found["EDH"].p_holm, found["EDH"].test) == (None, None, "")
    ich = a[a["label"] == "ICH"], b[b["label"] == "ICH"]
    alone = paired_difference(*ich, bootstrap=200)["ICH"]
    assert alone.p == alone.p_holm == found["ICH"].p
    low, high = alone.ci
    assert alone.se == pytest.approx((high - low) / 2 / 1.96, rel=0.2)  # as the bootstrap has it
    ap = paired_difference(a, b, "ap", bootstrap=200)["ICH"]
    assert (ap.p, ap.p_holm) == (None, None)


def test_too_few_patients_have_no_p() -> None:
    target, a, b, patient = cohort(60, 1, seed=1)
    few = np.flatnonzero((target == 0) | (np.cumsum(target) <= 4))
    pair = [predictions(target[few], score[few], patient[few], "ICH") for score in (a, b)]
    found = paired_difference(*pair, bootstrap=100)["ICH"]
    assert found.n_positive == 4
    assert found.difference is not None
    assert found.p is None


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
