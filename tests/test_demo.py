"""The demo, small: every stage through its own command, resumable, ending in a report."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from fmct.cli import main


def test_the_whole_line_from_synthetic_files_to_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--smoke", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"Open {out / 'report.html'}" in printed
    assert "$ fmct index" in printed
    page = (out / "report.html").read_text()
    assert "no diagnosis" in page
    assert page.count("data:image/") >= 4  # curves, reconstructions, scans
    assert "MidlineShift" in page
    assert "Nothing was rejected" in page
    manifest = pd.read_csv(out / "cohort" / "manifest.csv", dtype=str)
    assert set(manifest["site"]) == {"site_a", "site_b", "site_c"}
    assert set(manifest[manifest["site"] == "site_c"]["split"]) == {"test"}
    assert manifest.groupby("patient_id")["split"].nunique().max() == 1
    external = pd.read_parquet(out / "classify_smoke" / "evaluations" / "external" / "predictions.parquet")
    assert set(external["site"]) == {"site_c"}

    losses = json.loads((out / "pretrain_mae_smoke" / "environment.json").read_text())["steps"]
    (out / "report.html").unlink()
    assert main(["demo", "--smoke", "--out", str(out)]) == 0
    again = capsys.readouterr().out
    assert again.count("done already") == 9  # all but preprocessing and the report, which only do what is left
    assert json.loads((out / "pretrain_mae_smoke" / "environment.json").read_text())["steps"] == losses
    assert (out / "report.html").exists()


def test_a_stage_that_fails_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "something").touch()  # fmct phantom refuses a folder that isn't empty
    assert main(["demo", "--smoke", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "«write 32 synthetic heads as DICOM series and NIfTI files» ended with exit code 2" in error
    assert "it goes on from there" in error
