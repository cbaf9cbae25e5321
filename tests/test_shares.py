"""Hospitals of unequal size: every scan is dealt once, and equal shares deal as ever."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fmct.cli import main
from fmct.data.phantom.cohort import CohortConfig
from fmct.data.phantom.shares import scans_of_sites


def test_shares_are_kept_to_within_a_scan() -> None:
    assert scans_of_sites(10, [3, 1, 1]) == [6, 2, 2]
    assert scans_of_sites(11, [3, 1, 1]) == [7, 2, 2]
    for scans in range(1, 40):
        for shares in ([1.0, 1.0, 1.0], [0.7, 0.2, 0.1], [5.0, 1.0]):
            sizes = scans_of_sites(scans, shares)
            assert sum(sizes) == scans
            assert all(abs(n - scans * s / sum(shares)) < 1 for n, s in zip(sizes, shares, strict=True))


@pytest.mark.parametrize("scans", [1, 7, 8, 9, 60])
def test_equal_shares_are_no_shares(scans: int) -> None:
    assert CohortConfig(scans=scans, shares=(2.0, 2.0, 2.0)).build() == CohortConfig(scans=scans).build()


def test_a_cohort_has_its_shares() -> None:
    cases = CohortConfig(scans=100, shares=(8.0, 1.0, 1.0)).build()
    assert Counter(case.site for case in cases) == {"site_a": 80, "site_b": 10, "site_c": 10}


@pytest.mark.parametrize("shares", ["1,1", "1,1,0", "1,1,x", "1,1,inf"])
def test_wrong_shares_are_refused(shares: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phantom", "--n", "3", "--out", str(tmp_path / "cohort"), "--shares", shares]) == 2
    assert "aren't the shares of 3 sites" in capsys.readouterr().err
