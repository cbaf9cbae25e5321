"""Patients and sites that only the user knows."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from index_run import NO_PIXEL_RULES
from synthetic_series import head_like, stacked, write_series

from fmct.cli import main


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """One patient's DICOM series and NIfTI file, and another NIfTI file."""
    folder = tmp_path / "scans"
    write_series(folder / "series", head_like(10), stacked(10, 15.0), PatientID="P1")
    for name in ("a", "b"):
        hu = np.random.default_rng(ord(name)).integers(-1000, 100, (40, 32, 12)).astype(np.int16)
        nib.save(nib.Nifti1Image(hu, np.diag([4.5, 6, 8, 1])), folder / f"{name}.nii.gz")
    return folder


def index(scans: Path, table: str) -> int:
    (scans.parent / "table.csv").write_text(table)
    arguments = [str(scans), "--out", str(scans / "m.csv"), "--key-file", str(scans.parent / "key")]
    arguments += ["--skip-rules", NO_PIXEL_RULES]
    return main(["index", *arguments, "--site", "here", "--table", str(scans.parent / "table.csv")])


def test_a_nifti_file_joins_its_patient(scans: Path) -> None:
    assert index(scans, "path,patient_id,site,age\na.nii.gz,P1,there,50\nb.nii.gz,,there,60\n") == 0
    frame = pd.read_csv(scans / "m.csv", dtype=str).set_index("path")
    assert frame.loc["a.nii.gz", "patient_id"] == frame.loc["series", "patient_id"]
    assert frame.loc["b.nii.gz", "patient_id"] not in {"", frame.loc["a.nii.gz", "patient_id"]}
    assert frame["site"].to_dict() == {"series": "here", "a.nii.gz": "there", "b.nii.gz": "there"}
    assert "P1" not in (scans / "m.csv").read_text()


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("file,patient_id\na.nii.gz,P1\n", "the table needs `path`"),
        ("path,age\na.nii.gz,50\n", "the table needs `path`"),
        ("path,site\na.nii.gz,x\na.nii.gz,y\n", "with different values"),
        ("path,site\nz.nii.gz,x\n", "none of the scans' paths"),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    scans: Path, capsys: pytest.CaptureFixture[str], table: str, expected: str
) -> None:
    assert index(scans, table) == 2
    assert expected in capsys.readouterr().err
    assert not (scans / "m.csv").exists()
