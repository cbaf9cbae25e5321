"""A share of the training patients: nested, seeded, alike in site, whole patients."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from conftest import TinyCohort

from fmct.console.errors import UsageError
from fmct.data.datamodule import DataConfig
from fmct.data.fraction import share_of_patients


def cohort(sites: dict[str, int]) -> pd.DataFrame:
    """Two scans of each patient."""
    names = [(f"{site}{number:03d}", site) for site, count in sites.items() for number in range(count)]
    rows = [{"scan_id": f"{name}-{scan}", "patient_id": name, "site": site} for name, site in names for scan in "ab"]
    return pd.DataFrame(rows)


SITES = {"large": 120, "small": 30, "tiny": 10}


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.33, 0.5, 0.9])
def test_every_site_gives_its_share_in_whole_patients(fraction: float) -> None:
    kept = share_of_patients(cohort(SITES), fraction, seed=3)
    patients = kept.groupby("site")["patient_id"].nunique().reindex(list(SITES), fill_value=0)
    assert patients.sum() == round(fraction * 160)
    for site, count in SITES.items():
        assert abs(patients[site] - fraction * count) <= 1
    assert (kept.groupby("patient_id").size() == 2).all()


def test_smaller_shares_are_within_larger_ones_and_the_order_of_rows_is_nothing() -> None:
    frame = cohort(SITES)
    kept = [set(share_of_patients(frame, fraction, 0)["scan_id"]) for fraction in np.linspace(0.02, 1, 25)]
    assert all(small <= large for small, large in pairwise(kept))
    assert kept[-1] == set(frame["scan_id"])
    turned = share_of_patients(frame.sample(frac=1, random_state=1), 0.3, 0)
    same = share_of_patients(frame, 0.3, 0)
    assert sorted(turned["scan_id"]) == same["scan_id"].tolist()  # and the rows keep their order
    assert set(share_of_patients(frame, 0.3, 1)["scan_id"]) != set(same["scan_id"])


def test_over_seeds_every_patient_is_drawn_alike_often() -> None:
    frame = cohort({"one": 40})
    counts = Counter(name for seed in range(200) for name in share_of_patients(frame, 0.25, seed)["patient_id"])
    assert len(counts) == 40
    assert max(abs(count / 2 - 50) for count in counts.values()) < 5 * np.sqrt(200 * 0.25 * 0.75)


def test_at_least_one_patient_is_left() -> None:
    assert len(share_of_patients(cohort({"one": 3}), 0.01, 0)) == 2


def test_training_takes_the_share_before_the_shots_and_validation_takes_all(tiny: TinyCohort) -> None:
    def data(**more: object) -> tuple[set[str], int]:
        config = DataConfig(manifest=tiny.manifest, cache=tiny.cache, batch_size=2, **more)  # type: ignore[arg-type]
        module = config.build(["ICH"], seed=0)
        assert module.val is not None
        return set(module.train.frame["patient_id"]), len(module.val)

    everyone, validated = data()
    half, validated_then = data(fraction=0.5)
    assert half < everyone
    assert (len(everyone), len(half)) == (6, 3)
    assert validated == validated_then == 6
    shots = {"label": "MidlineShift", "k": 1}
    drawn, _ = data(fraction=0.7, fraction_seed=2, shots=shots)
    assert drawn <= data(fraction=0.7, fraction_seed=2)[0]
    with pytest.raises(UsageError, match="among the training scans"):
        data(fraction=0.1, shots=shots)
