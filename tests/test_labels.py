"""Joining labels to a manifest: any table, what was there before, prevalence, soft labels in training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TinyCohort

from fmct.cli import main
from fmct.data.dataset import ScanDataset
from fmct.data.labels.prevalence import prevalence
from fmct.data.manifest import read_manifest
from fmct.data.privacy import keyed_id, read_key
from fmct.data.volumes import VolumeCache
from fmct.experiment.loading import load_experiment
from fmct.experiment.schema import Experiment
from fmct.fit import fit

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.csv"
    path.write_text("scan_id,path,format,patient_id\n001,a/001,dicom,p1\n002,a/002,dicom,p1\n003,a/003,dicom,p2\n")
    return path


def label(manifest: Path, table: str, *arguments: str) -> int:
    (manifest.parent / "table.csv").write_text(table)
    out = str(manifest.parent / "out.csv")
    return main(["label", str(manifest), "--table", str(manifest.parent / "table.csv"), "--out", out, *arguments])


def values(manifest: Path, column: str) -> list[float | None]:
    frame = read_manifest(manifest.parent / "out.csv")
    return [None if pd.isna(value) else float(value) for value in pd.to_numeric(frame[column])]


def test_labels_join_by_identifier_and_unknown_stays_empty(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label(manifest, "scan_id,ICH,SDH,age\n002,1,,50\n001,0,1,60\n999,1,1,70\n", "--columns", "ICH,SDH") == 0
    assert values(manifest, "label:ICH") == [0, 1, None]
    assert values(manifest, "label:SDH") == [1, None, None]
    out = capsys.readouterr().out
    ich = next(line.split() for line in out.splitlines() if line.startswith("ICH"))
    assert ich == ["ICH", "1", "1", "1", "50.0%", "1", "0", "1", "100.0%"]  # patient p1 has one of each
    assert "2 of 3 scans got a label from table.csv; 1 got none" in out
    assert "1  rows of the table that are no scan's scan_id" in out


def test_prevalence_counts_a_patient_once() -> None:
    frame = pd.DataFrame({"patient_id": ["a", "a", "b", "b", "c"], "label:X": pd.array([0, 1, 0, None, None], "Int8")})
    assert prevalence(frame) == {
        "X": {
            "scans": {"positive": 1, "negative": 2, "unknown": 2},
            "patients": {"positive": 1, "negative": 1, "unknown": 1},
        }
    }


def test_the_outcome_as_json(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label(manifest, "scan_id,label:ICH\n002,1\n", "--json") == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["scans_labeled"] == 1
    assert outcome["scans_without_label"] == 2
    assert outcome["labels"]["ICH"]["scans"] == {"positive": 1, "negative": 0, "unknown": 2}


def test_label_columns_are_taken_by_name_and_earlier_values_stay(manifest: Path) -> None:
    assert label(manifest, "path,label:ICH\na/001,1\na/002,\n", "--on", "path") == 0
    (manifest.parent / "out.csv").rename(manifest)
    assert label(manifest, "path,label:ICH\na/002,0\na/001,\n", "--on", "path") == 0
    assert values(manifest, "label:ICH") == [1, 0, None]


def test_contradicting_the_manifest_needs_to_be_asked_for(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label(manifest, "scan_id,label:ICH\n001,1\n002,0\n") == 0
    (manifest.parent / "out.csv").rename(manifest)
    assert label(manifest, "scan_id,label:ICH\n001,1\n002,1\n") == 2
    error = capsys.readouterr().err
    assert "label:ICH of scan 002 is 0 in the manifest and 1 in the source; 1 such values" in error
    assert "--overwrite" in error
    assert label(manifest, "scan_id,label:ICH\n002,1\n", "--overwrite") == 0
    assert values(manifest, "label:ICH") == [1, 1, None]


def test_patients_in_the_clear_are_hashed_before_they_are_compared(manifest: Path, tmp_path: Path) -> None:
    key = read_key(tmp_path / "key")
    text = manifest.read_text().replace("p1", keyed_id("patient", "00123", key))
    manifest.write_text(text)
    table = "patient_id,label:ICH\n00123,1\np2,0\n"  # one in the clear, one as the manifest has it
    assert label(manifest, table, "--on", "patient_id", "--key-file", str(tmp_path / "key")) == 0
    assert values(manifest, "label:ICH") == [1, 1, 0]


def test_parquet_tables_and_byte_order_marks(manifest: Path, tmp_path: Path) -> None:
    assert label(manifest, "\ufeffscan_id,label:ICH\n001,1\n") == 0
    assert values(manifest, "label:ICH") == [1, None, None]
    frame = pd.DataFrame({"scan_id": ["001", "002"], "label:ICH": [1.0, np.nan]})
    frame.to_parquet(tmp_path / "t.parquet")
    out = str(tmp_path / "out.csv")
    assert main(["label", str(manifest), "--table", str(tmp_path / "t.parquet"), "--out", out]) == 0
    assert values(manifest, "label:ICH") == [1, None, None]
    frame.assign(scan_id=[1, 2]).to_parquet(tmp_path / "t.parquet")
    assert main(["label", str(manifest), "--table", str(tmp_path / "t.parquet"), "--out", out]) == 2


@pytest.mark.parametrize(
    ("table", "arguments", "expected"),
    [
        ("scan_id,ICH\n001,2\n", ["--columns", "ICH"], "ICH is 2; labels are 1, 0 or empty"),
        ("scan_id,ICH\n001,1\n001,0\n", ["--columns", "ICH"], "one scan_id comes twice with different labels"),
        ("scan_id,ICH\n999,1\n", ["--columns", "ICH"], "no scan's scan_id is in the table (001 in the manifest"),
        ("scan_id,ICH\n001,1\n", ["--columns", "ICHH"], "did you mean ICH?"),
        ("scan_id,ICH\n001,1\n", [], "no label columns"),
        ("scan,ICH\n001,1\n", ["--columns", "ICH"], "no column scan_id"),
        ("scan_id,soft:ICH\n001,1.5\n", [], "soft:ICH is 1.5; it must be a share from 0 to 1"),
        ("scan_id,ICH\n001,1\n", ["--columns", "ICH", "--on", "scanid"], "did you mean scan_id?"),
        ("", [], "the table is empty"),
        ("scan_id,label:ICH\n001,1,7\n", [], "another number of columns"),
        ("scan_id,label:ICH\n001,1\n", ["--key-file", "nowhere"], "the key file doesn't exist"),
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


@pytest.mark.parametrize(
    ("table", "arguments"),
    [
        ("scan_id,name\n001,DOE^JOHN\n", ["--columns", "name"]),
        ("patient_id,label:ICH\nMRN77,1\nMRN77,0\n", ["--on", "patient_id"]),
        ("patient_id,label:ICH\nMRN77,1\n", ["--on", "patient_id"]),
        ("patient_id,label:ICH\nMRN77,1,DOE\n", ["--on", "patient_id"]),
    ],
)
def test_errors_name_lines_not_people(
    manifest: Path, capsys: pytest.CaptureFixture[str], table: str, arguments: list[str]
) -> None:
    assert label(manifest, table, *arguments) == 2
    error = capsys.readouterr().err
    assert "DOE" not in error
    assert "MRN77" not in error


@pytest.mark.parametrize(
    ("source", "flag"),
    [
        ("csv", ["--vote", "any"]),
        ("csv", ["--before-days", "30"]),  # also when it is the default
        ("cq500", ["--on", "path"]),
        ("cq500", ["--workers", "2"]),
        ("rsna2019", ["--key-file", "key"]),
        ("ehr", ["--vote", "mean"]),
    ],
)
def test_flags_of_another_source_are_refused_by_name(
    manifest: Path, capsys: pytest.CaptureFixture[str], source: str, flag: list[str]
) -> None:
    assert label(manifest, "scan_id,label:ICH\n001,1\n", "--source", source, *flag) == 2
    assert f"{flag[0]} means nothing to --source {source}" in capsys.readouterr().err


@pytest.fixture
def soft(tiny: TinyCohort, tmp_path: Path) -> TinyCohort:
    """The tiny cohort with shares of readers that contradict its labels, and one that is missing."""
    frame = pd.read_csv(tiny.manifest, dtype=str, keep_default_na=False)
    frame["soft:ICH"] = [f"{0.75 - 0.5 * int(value)}" for value in frame["label:ICH"]]
    frame.loc[0, "soft:ICH"] = ""
    path = tmp_path / "soft.csv"
    frame.to_csv(path, index=False)
    return TinyCohort(path, tiny.cache)


def experiment(cohort: TinyCohort, runs: Path, *more: str) -> Experiment:
    return load_experiment(
        [EXPERIMENTS / "classify_smoke.yaml"],
        [
            *("--data.manifest", str(cohort.manifest), "--data.cache", str(cohort.cache)),
            *("--trainer.runs", str(runs), "--input.voxels", "24", *more),
        ],
    )


def test_soft_labels_are_for_training_only(soft: TinyCohort, tmp_path: Path) -> None:
    data = experiment(soft, tmp_path, "--data.soft_labels", "true").data.build(("ICH", "MidlineShift"), seed=0)
    assert data.val is not None
    hard = data.train.frame["label:ICH"].to_numpy(dtype=float)
    assert data.train.targets[0, 0] == hard[0]  # no share there: the label
    np.testing.assert_allclose(data.train.targets[1:, 0], 0.75 - 0.5 * hard[1:])
    np.testing.assert_array_equal(data.train.targets[:, 1], data.train.frame["label:MidlineShift"].astype("float32"))
    np.testing.assert_array_equal(data.val.targets[:, 0], data.val.frame["label:ICH"].to_numpy(dtype=float))
    without = experiment(soft, tmp_path).data.build(("ICH",), seed=0)
    np.testing.assert_array_equal(without.train.targets[:, 0], hard)


def test_the_loss_is_linear_in_soft_labels(tiny: TinyCohort, tmp_path: Path) -> None:
    """From the same weights: the loss with shares of 1/4 is 3/4 of that with zeros plus 1/4 of that with ones."""
    frame = pd.read_csv(tiny.manifest, dtype=str, keep_default_na=False)
    losses = {}
    for share in (0.0, 0.25, 1.0):
        hard = frame["label:ICH"].astype(int)
        frame["soft:ICH"] = np.where(hard == 1, share, 0.5)
        path = tmp_path / f"{share}.csv"
        frame.to_csv(path, index=False)
        flags = (
            "--task.labels",
            '["ICH"]',
            "--task.mode",
            "scratch",
            "--task.weights",
            "null",
            "--trainer.max_steps",
            "1",
        )
        folder = fit(
            experiment(TinyCohort(path, tiny.cache), tmp_path / f"{share}", *flags, "--data.soft_labels", "true")
        )
        losses[share] = pd.read_csv(folder / "metrics.csv")["train/loss"].dropna().iloc[0]
    assert abs(losses[0.0] - losses[1.0]) > 1e-3
    assert losses[0.25] == pytest.approx(0.75 * losses[0.0] + 0.25 * losses[1.0], rel=1e-5)


def test_soft_labels_that_would_do_nothing_are_refused(
    tiny: TinyCohort, soft: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["fit", "--config", str(EXPERIMENTS / "classify_smoke.yaml"), "--data.soft_labels", "true"]
    where = ["--data.cache", str(tiny.cache), "--trainer.runs", str(tmp_path / "runs"), "--input.voxels", "24"]
    null = ["--task.mode", "scratch", "--task.weights", "null"]
    assert main([*base, "--data.manifest", str(tiny.manifest), *where, *null]) == 2
    assert "the manifest has no soft:NAME column for ICH, MidlineShift" in capsys.readouterr().err
    base[2] = str(EXPERIMENTS / "pretrain_mae_smoke.yaml")
    assert main([*base, "--data.manifest", str(soft.manifest), *where]) == 2
    assert "a pretext task learns no labels" in capsys.readouterr().err
    frame = read_manifest(soft.manifest)
    frame.loc[3, "soft:ICH"] = "2"
    with pytest.raises(Exception, match=r"soft:ICH is 2; it must be a share from 0 to 1.*\n.*scan003"):
        ScanDataset(frame, VolumeCache.open(tiny.cache), ("ICH",), soft=True)
