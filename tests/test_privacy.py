"""What identifies a patient is hashed with a key or not written at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from synthetic_series import head_like, stacked, write_series

from fmct.console.command import main
from fmct.data.manifest import read_manifest
from fmct.data.privacy import age_years, keyed_id, read_key
from fmct.index import COMMAND as INDEX
from fmct.preprocess import COMMAND as PREPROCESS


def index(root: Path, *arguments: str) -> int:
    return main(
        INDEX, [str(root), "--out", str(root.parent / "m.csv"), "--key-file", str(root.parent / "key"), *arguments]
    )


def test_nothing_that_names_the_patient_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path / "in" / "good", head_like(), stacked(12))
    write_series(tmp_path / "in" / "bad", head_like(), stacked(12), PixelSpacing=None)
    broken = tmp_path / "in" / "broken"
    for path in write_series(broken, head_like(), stacked(12)):
        path.write_bytes(path.read_bytes()[:-900].replace(b"058Y", b"\xffJOH"))
    assert index(tmp_path / "in", "--site", "north") == 3
    main(
        PREPROCESS, [str(tmp_path / "m.csv"), "--cache", str(tmp_path / "cache"), "--spacing-mm", "4", "--no-head-crop"]
    )
    written = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_relative_to(tmp_path / "in")]
    assert {"m.csv", "rejects.csv", "index.parquet"} <= {path.name for path in written}
    captured = capsys.readouterr()
    for content in [*(path.read_bytes() for path in written), captured.out.encode(), captured.err.encode()]:
        for secret in (b"DOE", b"JOHN", b"0012345", b"19610203", b"20190405", b"1961"):
            assert secret not in content
    frame = read_manifest(tmp_path / "m.csv")
    assert set(frame["site"]) == {"north"}
    assert frame["sex"].tolist() == ["M"]  # of the good series; the broken one's pixels are cut short
    assert set(frame["age"].dropna()) == {58.0}


def test_keys_make_identifiers(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "a", head_like(), stacked(12))
    write_series(tmp_path / "in" / "b", head_like(seed=1), stacked(12), PatientID=" MRN0012345 ")
    write_series(tmp_path / "in" / "c", head_like(seed=2), stacked(12), PatientID="")
    nib.save(nib.Nifti1Image(head_like().T, np.diag([1.5, 2, 5, 1])), tmp_path / "in" / "p17.nii.gz")
    shutil.copy(tmp_path / "in" / "p17.nii.gz", tmp_path / "in" / "p18.nii.gz")
    index(tmp_path / "in")
    first = read_manifest(tmp_path / "m.csv").set_index("path")
    index(tmp_path / "in")
    assert read_manifest(tmp_path / "m.csv").set_index("path").equals(first)
    assert first.loc["in/a", "patient_id"] == first.loc["in/b", "patient_id"] != first.loc["in/c", "patient_id"]
    key = read_key(tmp_path / "key")
    assert first.loc["in/p17.nii.gz", "patient_id"] == keyed_id("patient", "p17", key)
    assert "in/p18.nii.gz" not in first.index  # a copy
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "key").unlink()
    index(tmp_path / "in")
    other = read_manifest(tmp_path / "m.csv").set_index("path")
    assert other.loc["in/a", "patient_id"] != first.loc["in/a", "patient_id"]
    assert other.loc["in/a", "series_id"] == first.loc["in/a", "series_id"]
    assert other["scan_id"].equals(first["scan_id"])


@pytest.mark.parametrize(
    ("text", "years"), [("058Y", 58), ("018M", 1.5), ("006W", 0.11), ("095Y", 90), ("", np.nan), ("x", np.nan)]
)
def test_ages(text: str, years: float) -> None:
    assert age_years(text) == pytest.approx(years, nan_ok=True)
