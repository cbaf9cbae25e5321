"""Means over seeds: intervals that cover patients and seeds, paired differences, means over labels."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from fmct.console.errors import UsageError
from fmct.evaluation.confidence import Bootstrap, PatientCounts, percentile_interval
from fmct.evaluation.curve_table import shot_table
from fmct.evaluation.few_shot import FewShot, Shot, summarize_shots
from fmct.evaluation.run_scores import side_by_side
from fmct.evaluation.seed_means import ONE_SEED, bootstrapped, mean_over_labels, seed_mean
from fmct.evaluation.summary import METRICS, summarize

SETTINGS = Bootstrap.of(400, 0, 0.95)
MANY = PatientCounts(200, 100, 100)


def predictions(label: str, seed: int, strength: float = 1.0, scans: int = 60) -> pd.DataFrame:
    """Two scans per patient; targets depend on the label, scores on the seed too."""
    target = (np.arange(scans) // (2 if label == "ICH" else 3)) % 2
    noise = np.random.default_rng([seed, 7]).normal(size=scans)
    return pd.DataFrame(
        {
            "scan_id": [f"s{number:03d}" for number in range(scans)],
            "patient_id": [f"p{number // 2:03d}" for number in range(scans)],
            "label": label,
            "target": target.astype(float),
            "probability": 1 / (1 + np.exp(-(strength * target + noise))),
        }
    )


def test_without_spread_over_seeds_the_interval_is_that_of_the_patients() -> None:
    replicates = np.tile(np.random.default_rng(0).normal(0.8, 0.03, 5000), (3, 1))
    found = seed_mean(np.full(3, 0.8), replicates, MANY, SETTINGS)
    expected = percentile_interval(replicates[0], MANY, 0.95).bounds
    assert found.ci == pytest.approx(expected)
    assert found.ci_patients == pytest.approx(expected)
    assert found.seed_sd == pytest.approx(0)


def test_with_endless_patients_the_interval_is_students() -> None:
    values = np.array([0.70, 0.74, 0.69, 0.77, 0.72])
    found = seed_mean(values, np.tile(values[:, None], (1, 400_000)), MANY, SETTINGS)
    expected = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.ci == pytest.approx(expected, abs=1e-3)
    assert found.seed_sd == pytest.approx(values.std(ddof=1))


def test_one_seed_says_that_it_speaks_for_itself_alone() -> None:
    found = seed_mean(np.array([0.8]), np.random.default_rng(0).normal(0.8, 0.03, (1, 500)), MANY, SETTINGS)
    assert found.note == ONE_SEED
    assert found.ci == found.ci_patients
    assert found.seed_sd is None


def test_the_interval_covers_a_new_cohort_with_new_seeds_as_often_as_it_says() -> None:
    """Normal effects of patients (sd 0.03) and of seeds (sd 0.04), five seeds: 95 % asked for."""
    rng = np.random.default_rng(1)
    hits = narrow = 0
    for _ in range(400):
        cohort = rng.normal(0, 0.03)
        values = 0.6 + cohort + rng.normal(0, 0.04, 5)
        replicates = values[:, None] + rng.normal(0, 0.03, 400)  # the same patients for all seeds
        found = seed_mean(values, replicates, MANY, SETTINGS)
        assert found.ci is not None
        assert found.ci_patients is not None
        hits += found.ci[0] <= 0.6 <= found.ci[1]
        narrow += found.ci_patients[0] <= 0.6 <= found.ci_patients[1]
    assert 0.92 <= hits / 400 <= 0.985
    assert narrow / 400 < 0.92  # patients alone would promise too much


def test_values_are_those_of_evaluate_and_of_scikit_learn() -> None:
    frames = {seed: predictions("ICH", seed) for seed in range(3)}
    values, replicates = bootstrapped(side_by_side("ICH", frames), SETTINGS, METRICS)
    for seed, frame in frames.items():
        assert values[0, seed] == pytest.approx(roc_auc_score(frame["target"], frame["probability"]), abs=1e-12)
        assert values[1, seed] == pytest.approx(
            average_precision_score(frame["target"], frame["probability"]), abs=1e-12
        )
    one = summarize(frames[1], bootstrap=400)["labels"]["ICH"]
    assert np.quantile(replicates[0, 1], [0.025, 0.975]).tolist() == pytest.approx(one["auroc_ci"])


def test_a_mean_over_labels_draws_patients_once_for_all_of_them() -> None:
    same = {label: predictions("ICH", 0).assign(label=label) for label in ("ICH", "copy")}
    tables = [side_by_side(label, {0: frame}) for label, frame in same.items()]
    values, replicates = mean_over_labels(tables, [[0], [0]], SETTINGS, METRICS)
    alone, of_one = mean_over_labels(tables[:1], [[0]], SETTINGS, METRICS)
    np.testing.assert_allclose(values, alone)
    np.testing.assert_allclose(replicates, of_one)  # two equal labels are no more certain than one


def test_runs_on_other_scans_are_refused() -> None:
    frame = predictions("ICH", 0)
    with pytest.raises(UsageError, match="weren't evaluated on the same scans"):
        side_by_side("ICH", {"a": frame, "b": frame[1:]})
    with pytest.raises(UsageError, match="weren't evaluated on the same scans"):
        side_by_side("ICH", {"a": frame, "b": frame.assign(target=1 - frame["target"])})


def curves(labels: tuple[str, ...] = ("ICH", "SDH"), rare: str = "") -> tuple[FewShot, pd.DataFrame]:
    planned = [Shot(*parts) for parts in product(("scratch", "mae"), labels, (8, 16), range(3))]
    skipped = {shot: "too few" for shot in planned if shot.label == rare and shot.k == 16}
    strength = {"scratch": 0.8, "mae": 2.0}
    there = {
        shot: predictions(shot.label, 10 * shot.seed + shot.k, strength[shot.initialization])
        for shot in planned
        if shot not in skipped
    }
    return summarize_shots(planned, there, skipped, {}, SETTINGS, "scratch")


def test_differences_are_paired_by_draw_and_patient() -> None:
    found, table = curves()
    wide = table.pivot_table(index=["label", "k", "seed"], columns="initialization", values="auroc")
    for label, one in found.labels.items():
        for point in one.points:
            mine = wide.loc[label, point.k]
            assert point.auroc.mean == pytest.approx(mine[point.initialization].mean())
            if point.initialization == "mae":
                assert point.auroc_difference.mean == pytest.approx((mine["mae"] - mine["scratch"]).mean())
                assert point.auroc_difference.seed_sd == pytest.approx((mine["mae"] - mine["scratch"]).std())
            else:
                assert point.auroc_difference.mean is None
    for point in found.mean.points:
        of_labels = [wide.loc[label, point.k][point.initialization].mean() for label in ("ICH", "SDH")]
        assert point.auroc.mean == pytest.approx(np.mean(of_labels))


def test_equal_runs_differ_by_nothing_however_uncertain_each_is() -> None:
    planned = [Shot(start, "ICH", 8, seed) for start in ("scratch", "mae") for seed in range(3)]
    there = {shot: predictions("ICH", shot.seed) for shot in planned}
    point = summarize_shots(planned, there, {}, {}, SETTINGS, "scratch")[0].labels["ICH"].points[1]
    assert (point.initialization, point.auroc_difference.mean, point.auroc_difference.seed_sd) == ("mae", 0, 0)
    assert point.auroc.ci is not None
    assert point.auroc.ci[1] - point.auroc.ci[0] > 0.1


def test_a_label_that_lacks_runs_at_some_k_is_in_no_mean() -> None:
    found, table = curves(rare="SDH")
    assert found.mean.labels == ("ICH",)
    assert found.mean.left_out == ("SDH",)
    at_16 = [point for point in found.labels["SDH"].points if point.k == 16]
    assert all((point.status, point.reason, point.auroc.mean) == ("n/a", "too few", None) for point in at_16)
    assert table["auroc"].isna().sum() == 6
    for point, of_label in zip(found.mean.points, found.labels["ICH"].points, strict=True):
        assert point.auroc.mean == of_label.auroc.mean


def test_a_label_of_one_class_stays_out() -> None:
    planned = [Shot("mae", label, 4, 0) for label in ("ICH", "SAH")]
    there = {planned[0]: predictions("ICH", 0), planned[1]: predictions("SAH", 0).assign(target=0.0)}
    found, table = summarize_shots(planned, there, {}, {}, SETTINGS, None)
    assert found.mean.labels == ("ICH",)
    assert found.labels["SAH"].points[0].reason == "only one class among 60 scans (all negative)"
    assert table.set_index("label").loc["SAH", "reason"] == "only one class among 60 scans (all negative)"


def test_tables_fit_a_terminal_however_many_k_there_are() -> None:
    planned = [Shot("mae", "BleedLocation-Right", k, 0) for k in (1, 2, 4, 8, 16, 32, 64)]
    there = {shot: predictions(shot.label, shot.k) for shot in planned}
    text = shot_table(summarize_shots(planned, there, {}, {}, SETTINGS, None)[0])
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("BleedLocation-Right") == 2  # two blocks
    assert [f"k = {k}" in text for k in (1, 64)] == [True, True]
