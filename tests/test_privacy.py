"""What identifies a patient is hashed with a key or not written at all."""

from __future__ import annotations

import hashlib
import hmac
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from index_run import index, manifest
from synthetic_series import head_like, stacked, write_series

from fmct.console.command import main
from fmct.data.privacy import age_years, keyed_id, read_key
from fmct.preprocess import COMMAND as PREPROCESS


def test_nothing_that_names_the_patient_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path / "in" / "good", head_like(), stacked(12))
    write_series(tmp_path / "in" / "bad", head_like(), stacked(12), PixelSpacing=None)
    broken = tmp_path / "in" / "broken"
    for path in write_series(broken, head_like(), stacked(12)):
        path.write_bytes(path.read_bytes().replace(b"058Y", b"\xffJOH"))
    assert index(tmp_path / "in", "--site", "north") == 3
    main(
        PREPROCESS, [str(tmp_path / "m.csv"), "--cache", str(tmp_path / "cache"), "--spacing-mm", "4", "--no-head-crop"]
    )
    written = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_relative_to(tmp_path / "in")]
    assert {"m.csv", "rejects.csv", "index.parquet", "m.csv.headers.sqlite"} <= {path.name for path in written}
    captured = capsys.readouterr()
    for content in [*(path.read_bytes() for path in written), captured.out.encode(), captured.err.encode()]:
        for secret in (b"DOE^", b"DOE ", b"JOHN", b"MRN00", b"19610203", b"20190405"):
            assert secret not in content
    frame = manifest(tmp_path)
    assert set(frame["site"]) == {"north"}
    assert frame["sex"].tolist() == ["M", "M"]
    assert set(frame["age"]) == {58.0, 58.17}  # as stated, and from the dates where that's broken


def test_keys_make_identifiers(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "a", head_like(), stacked(12))
    write_series(tmp_path / "in" / "b", head_like(seed=1), stacked(12), PatientID=" MRN0012345 ")
    write_series(tmp_path / "in" / "c", head_like(seed=2), stacked(12), PatientID="")
    nib.save(nib.Nifti1Image(head_like().T, np.diag([4.5, 6, 8, 1])), tmp_path / "in" / "p17.nii.gz")
    shutil.copy(tmp_path / "in" / "p17.nii.gz", tmp_path / "in" / "p18.nii.gz")
    index(tmp_path / "in")
    first = manifest(tmp_path)
    index(tmp_path / "in")
    assert manifest(tmp_path).equals(first)
    assert first.loc["in/a", "patient_id"] == first.loc["in/b", "patient_id"] != first.loc["in/c", "patient_id"]
    key = read_key(tmp_path / "key")
    assert first.loc["in/p17.nii.gz", "patient_id"] == keyed_id("patient", "p17", key)
    digest = hmac.new(key, b"patient:MRN0012345", hashlib.sha256).hexdigest()
    assert first.loc["in/a", "patient_id"] == digest[:16]
    assert "in/p18.nii.gz" not in first.index  # a copy
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "key").unlink()
    index(tmp_path / "in")
    other = manifest(tmp_path)
    assert other.loc["in/a", "patient_id"] != first.loc["in/a", "patient_id"]
    assert other.loc["in/a", "series_id"] == first.loc["in/a", "series_id"]
    assert other["scan_id"].equals(first["scan_id"])


def test_dates_become_an_age(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "a", head_like(), stacked(12), PatientAge=None)
    write_series(tmp_path / "in" / "b", head_like(), stacked(12), PatientAge="", PatientBirthDate="18990101")
    write_series(tmp_path / "in" / "c", head_like(), stacked(12), PatientAge=None, PatientBirthDate=None)
    write_series(tmp_path / "in" / "d", head_like(), stacked(12), PatientAge=None, StudyDate="19500101")
    index(tmp_path / "in")
    ages = manifest(tmp_path)["age"]
    assert ages["in/a"] == pytest.approx(58.17, abs=0.01)  # 1961-02-03 to 2019-04-05
    assert ages["in/b"] == 90  # older patients can be told by their age alone
    assert np.isnan(ages["in/c"])
    assert np.isnan(ages["in/d"])  # born after the study


@pytest.mark.parametrize(
    ("text", "years"), [("058Y", 58), ("018M", 1.5), ("006W", 0.11), ("095Y", 90), ("", np.nan), ("x", np.nan)]
)
def test_ages(text: str, years: float) -> None:
    assert age_years(text) == pytest.approx(years, nan_ok=True)
