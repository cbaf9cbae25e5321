"""Joining labels to a manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from fmct.cli import main
from fmct.data.manifest import read_manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.csv"
    path.write_text("scan_id,path,format,patient_id\n001,a/001,dicom,p1\n002,a/002,dicom,p1\n003,a/003,dicom,p2\n")
    return path


def label(manifest: Path, table: str, *arguments: str) -> int:
    (manifest.parent / "table.csv").write_text(table)
    out = str(manifest.parent / "out.csv")
    return main(["label", str(manifest), "--table", str(manifest.parent / "table.csv"), "--out", out, *arguments])


def test_labels_join_by_identifier_and_unknown_stays_empty(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label(manifest, "scan_id,ICH,SDH,age\n002,1,,50\n001,0,1,60\n999,1,1,70\n", "--columns", "ICH,SDH") == 0
    frame = read_manifest(manifest.parent / "out.csv").set_index("scan_id")
    assert frame["label:ICH"].astype("object").where(frame["label:ICH"].notna(), None).tolist() == [0, 1, None]
    assert frame["label:SDH"].isna().tolist() == [False, True, True]
    assert "label:ICH                       1        1        1" in capsys.readouterr().out


def test_label_columns_are_taken_by_name_and_earlier_values_stay(manifest: Path) -> None:
    assert label(manifest, "path,label:ICH\na/001,1\na/002,\n", "--on", "path") == 0
    (manifest.parent / "out.csv").rename(manifest)
    assert label(manifest, "path,label:ICH\na/002,0\na/001,\n", "--on", "path") == 0
    frame = read_manifest(manifest.parent / "out.csv")
    assert frame["label:ICH"].fillna(-1).tolist() == [1, 0, -1]


@pytest.mark.parametrize(
    ("table", "arguments", "expected"),
    [
        ("scan_id,ICH\n001,2\n", ["--columns", "ICH"], "labels are 1, 0 or empty"),
        ("scan_id,ICH\n001,1\n001,0\n", ["--columns", "ICH"], "comes twice with different labels"),
        ("scan_id,ICH\n999,1\n", ["--columns", "ICH"], "no scan's scan_id is in the table"),
        ("scan_id,ICH\n001,1\n", ["--columns", "ICHH"], "did you mean ICH?"),
        ("scan_id,ICH\n001,1\n", [], "no label columns"),
        ("scan,ICH\n001,1\n", ["--columns", "ICH"], "no column scan_id"),
    ],
)
def test_bad_tables_are_refused(
    manifest: Path, capsys: pytest.CaptureFixture[str], table: str, arguments: list[str], expected: str
) -> None:
    assert label(manifest, table, *arguments) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 3
    assert not (manifest.parent / "out.csv").exists()
