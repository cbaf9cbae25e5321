"""Results by subgroup: how scans are divided, what is stated, and that equal groups aren't called different."""

from __future__ import annotations

from math import erf

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fmct.console.errors import UsageError
from fmct.evaluate import Evaluate
from fmct.evaluation.facts import Facts, with_facts
from fmct.evaluation.grouping import SUBGROUPS, check_columns, groups_by
from fmct.evaluation.subgroups import subgroups
from fmct.evaluation.summary import summarize


def cohort(n_patients: int = 240, seed: int = 0, worse_at_b: float = 0.0) -> pd.DataFrame:
    """Two scans per patient; every fifth patient has one scan at each site."""
    generator = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), 2)
    target = (patient % 3 == 0).astype(float)
    site = np.where(patient % 2 == 0, "site_a", "site_b")
    site = np.where((patient % 5 == 0) & (np.arange(2 * n_patients) % 2 == 1), "site_b", site)
    gain = np.where(site == "site_b", 1.0 - worse_at_b, 1.0)
    logit = 0.8 * generator.normal(size=n_patients)[patient] + 0.6 * generator.normal(size=len(patient)) + gain * target
    return pd.DataFrame(
        {
            "scan_id": [f"s{i:04d}" for i in range(len(patient))],
            "patient_id": [f"p{i:04d}" for i in patient],
            "label": "ICH",
            "target": target,
            "probability": 1 / (1 + np.exp(-logit)),
            "site": site,
            "manufacturer": np.where(patient % 4 < 2, "GE", ""),
            "model": np.where(patient % 4 == 0, "Revolution", ""),
            "spacing_z_mm": np.where(patient % 7 == 0, np.nan, 0.6 + (patient % 6)),
            "age": 15.0 + patient % 70,
            "sex": "F",
        }
    )


def rows_of(frame: pd.DataFrame, *by: str) -> pd.DataFrame:
    return pd.DataFrame([row.model_dump() for row in subgroups(frame, by, 0.95).rows])


def test_groups_are_columns_scanners_and_bins() -> None:
    frame = cohort()
    assert groups_by(frame, "site").tolist() == frame["site"].tolist()
    assert set(groups_by(frame, "scanner")) == {"GE Revolution", "GE unknown", "unknown"}
    ages = pd.DataFrame({"age": [17.9, 18, 39.9, 64, 65, 80, 95, np.nan]})
    assert groups_by(ages, "age").tolist() == [
        "below 18 years", "18 to below 40 years", "18 to below 40 years", "40 to below 65 years",
        "65 to below 80 years", "80 years and more", "80 years and more", "unknown",
    ]  # fmt: skip
    slices = pd.DataFrame({"spacing_z_mm": [0.625, 1.5, 2.5, 5.0, 7.5, None]})
    assert groups_by(slices, "slice_mm").tolist() == [
        "below 1.5 mm", "1.5 to below 3 mm", "1.5 to below 3 mm", "3 to below 6 mm", "6 mm and more", "unknown",
    ]  # fmt: skip
    assert groups_by(frame, "kernel") is None
    found = rows_of(frame, "age", "slice_mm")
    assert found["group"].drop_duplicates().tolist()[:3] == [
        "below 18 years",
        "18 to below 40 years",
        "40 to below 65 years",
    ]


def test_every_group_has_its_own_auroc_and_counts() -> None:
    frame = cohort()
    frame.loc[::9, "target"] = np.nan
    known = frame[frame["target"].notna()]
    for row in rows_of(frame, "site", "scanner").itertuples():
        inside = known[groups_by(known, row.by) == row.group]
        assert row.auroc == pytest.approx(roc_auc_score(inside["target"], inside["probability"]), abs=1e-12)
        assert (row.n_scans, row.n_positive) == (len(inside), inside["target"].sum())
        assert row.n_patients == inside["patient_id"].nunique()
        rest = known[~groups_by(known, row.by).isin([row.group, "unknown"])]
        assert row.difference == pytest.approx(
            row.auroc - roc_auc_score(rest["target"], rest["probability"]), abs=1e-12
        )
        assert row.auroc_ci[0] < row.auroc < row.auroc_ci[1]
        assert row.difference_ci[0] < row.difference < row.difference_ci[1]


def test_intervals_cover_the_truth_and_differences_cover_zero() -> None:
    truth, cohorts = 0.5 * (1 + erf(0.5)), 150
    rows = pd.concat([rows_of(cohort(seed=seed), "site").head(1) for seed in range(cohorts)])
    assert 0.90 <= np.mean([low <= truth <= high for low, high in rows["auroc_ci"]]) <= 0.99
    assert 0.90 <= np.mean([low <= 0 <= high for low, high in rows["difference_ci"]]) <= 0.99


def test_a_group_that_is_worse_is_found() -> None:
    at_a, at_b = rows_of(cohort(worse_at_b=1.0), "site").itertuples()
    assert at_a.difference_ci[0] > 0
    assert at_b.difference == pytest.approx(-at_a.difference, abs=1e-12)
    assert at_b.difference_ci == pytest.approx((-at_a.difference_ci[1], -at_a.difference_ci[0]))


def test_small_groups_are_not_judged() -> None:
    frame = cohort()
    frame.loc[:11, "site"] = "tiny"
    frame.loc[frame["patient_id"].isin([f"p{i:04d}" for i in range(200, 240)]), "site"] = "healthy"
    frame.loc[frame["site"] == "healthy", "target"] = 0
    found = rows_of(frame, "site").set_index("group")
    assert found.loc["tiny", "status"] == "n/a"
    assert found.loc["tiny", "reason"] == "only 2 patients with positive scans; 5 are needed"
    assert found.loc["healthy", "reason"] == "only 0 patients with positive scans; 5 are needed"
    assert found.loc["healthy", ["auroc", "auroc_ci", "difference"]].isna().all()
    few = cohort()
    few.loc[few["patient_id"] < "p0020", "site"] = "few"
    assert "only 7 patients" in rows_of(few, "site").set_index("group").loc["few", "note"]


def test_metrics_hold_the_subgroups_that_were_asked_for() -> None:
    frame = cohort()
    found = summarize(frame, bootstrap=100)["subgroups"]
    assert found["by"] == ["site", "scanner", "slice_mm", "age"]  # one sex, no kernel
    assert "Obuchowski" in found["method"]
    by_ward = with_facts(frame.assign(ward=np.arange(480) % 2), Facts(subgroups=("ward",)))
    assert {row["group"] for row in summarize(by_ward, bootstrap=100)["subgroups"]["rows"]} == {"0", "1"}
    assert summarize(with_facts(frame, Facts(subgroups=())), bootstrap=100)["subgroups"] is None


def test_the_command_divides_as_the_library_does() -> None:
    assert tuple(Evaluate.model_fields["subgroups_by"].default.split(",")) == SUBGROUPS == Facts().subgroups


def test_a_subgroup_that_no_column_stands_for_is_refused() -> None:
    check_columns(["site", "age", "ward"], ["site", "age", "ward"], "m.csv")
    with pytest.raises(UsageError, match="no column for the subgroup scaner") as error:
        check_columns(["scaner"], ["site", "manufacturer"], "m.csv")
    assert "did you mean scanner?" in error.value.fix
