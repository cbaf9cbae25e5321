"""Tables of features: what they must be, and that errors name the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fmct.console.errors import UsageError
from fmct.data.feature_table import read_features


def table(scan_ids: list[str] | None = None, width: int = 3) -> pd.DataFrame:
    names = scan_ids or ["00123", "7", "abc"]
    values = np.arange(len(names) * width, dtype=np.float32).reshape(len(names), width)
    return pd.DataFrame({"scan_id": names} | {f"f{i}": values[:, i] for i in range(width)})


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_names_are_text_and_features_have_any_names(tmp_path: Path, suffix: str) -> None:
    frame = table().rename(columns={"f0": "google embedding 0"}).astype({"f1": "int64"})
    path = tmp_path / f"t.{suffix}"
    frame.to_parquet(path) if suffix == "parquet" else frame.to_csv(path, index=False)
    read = read_features([path])
    assert read.columns == ("google embedding 0", "f1", "f2")
    assert read.scan_ids == ("00123", "7", "abc")
    assert read.of("00123").dtype == np.float32
    assert read.of("abc").tolist() == [6, 7, 8]


def test_several_tables_are_one_below_the_other_whatever_the_order_of_columns(tmp_path: Path) -> None:
    table(["a", "b"]).to_parquet(tmp_path / "1.parquet")
    table(["c"])[["f2", "scan_id", "f0", "f1"]].to_parquet(tmp_path / "2.parquet")
    read = read_features([tmp_path / "1.parquet", tmp_path / "2.parquet"])
    assert read.scan_ids == ("a", "b", "c")
    assert read.of("c").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: f.drop(columns="scan_id"), "no column scan_id"),
        (lambda f: f.rename(columns={"scan_id": "scanid"}), "rename the column scanid"),
        (lambda f: f.assign(scan_id=[1, 2, 3]), "holds numbers, not text"),
        (lambda f: f.assign(scan_id=["a", "a", "b"]), "1 scans come twice: a"),
        (lambda f: f.assign(f1=[0.0, np.nan, np.inf]), r"f1 is no finite number, and 2 scans have such values"),
        (lambda f: f.assign(f1=["x", "y", "z"]), "the column f1 holds no numbers"),
        (lambda f: f.assign(f1=True), "the column f1 holds no numbers"),
        (lambda f: f[["scan_id"]], "has no features"),
        (lambda f: f.iloc[:0], "has no rows"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], expected: str
) -> None:
    path = tmp_path / "foreign.parquet"
    change(table()).to_parquet(path)
    with pytest.raises(UsageError, match=expected) as caught:
        read_features([path])
    assert "foreign.parquet" in caught.value.where


def test_a_csv_that_holds_words_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("scan_id,f0\na,1\nb,none\n")
    with pytest.raises(UsageError, match="f0 is 'none', not a number") as caught:
        read_features([tmp_path / "t.csv"])
    assert "line 3 (scan b)" in caught.value.where


def test_other_features_than_the_weights_were_fitted_on(tmp_path: Path) -> None:
    table().to_parquet(tmp_path / "t.parquet")
    read = read_features([tmp_path / "t.parquet"])
    with pytest.raises(UsageError, match="3 features, the weights were fitted on 2"):
        read.ordered(["f0", "f1"])
    with pytest.raises(UsageError, match="no feature e2, which the weights were fitted on; it has f2"):
        read.ordered(["f0", "f1", "e2"])
    assert read.ordered(["f2", "f0", "f1"]).of("7").tolist() == [5, 3, 4]


def test_a_scan_in_two_tables_names_both(tmp_path: Path) -> None:
    table(["a", "b"]).to_parquet(tmp_path / "1.parquet")
    table(["b"]).to_parquet(tmp_path / "2.parquet")
    with pytest.raises(UsageError, match="the scan b is in two tables") as caught:
        read_features([tmp_path / "1.parquet", tmp_path / "2.parquet"])
    assert "1.parquet" in caught.value.where
    assert "2.parquet" in caught.value.where


def test_missing_scans_are_counted_and_some_named(tmp_path: Path) -> None:
    table().to_parquet(tmp_path / "t.parquet")
    read = read_features([tmp_path / "t.parquet"])
    asked = pd.DataFrame({"scan_id": ["7", *(f"x{number}" for number in range(8))]})
    with pytest.raises(UsageError, match="8 of 9 scans are not in the table: x0, x1, x2, x3, x4 and 3 more"):
        read.present(asked, only_present=False, option="--only-with-features")
    assert read.present(asked, only_present=True, option="--only-with-features")["scan_id"].tolist() == ["7"]
    lost = pd.DataFrame({"scan_id": ["123"]})
    with pytest.raises(UsageError, match="it has 00123, which is written otherwise"):
        read.present(lost, only_present=True, option="--only-with-features")
