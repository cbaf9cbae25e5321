"""Patients and splits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fmct.cli import main
from fmct.data.manifest import read_manifest, write_manifest
from fmct.data.splits import assign_splits


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(200):
        positive = rng.random() < 0.3
        for scan in range(1 + patient % 2):
            rows.append(
                {
                    "scan_id": f"s{patient:03d}_{scan}",
                    "path": f"p{patient}/{scan}.nii.gz",
                    "format": "nifti",
                    "patient_id": f"p{patient:03d}",
                    "split": "",
                    "site": "site_a" if patient < 140 else "site_b",
                    "label:ICH": int(positive),
                }
            )
    path = tmp_path / "manifest.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_patients_stay_whole_and_strata_keep_their_shares(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "split.csv"
    assert main(["split", str(manifest), "--fractions", "train=0.6,val=0.1,test=0.3", "--out", str(out)]) == 0
    frame = read_manifest(out)
    patients = frame.groupby("patient_id").agg({"split": ["nunique", "first"], "site": "first", "label:ICH": "max"})
    assert (patients[("split", "nunique")] == 1).all()
    shares = patients[("split", "first")].value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.6, abs=0.01)
    assert shares["test"] == pytest.approx(0.3, abs=0.01)
    for (_, _), stratum in patients.groupby([("site", "first"), ("label:ICH", "max")]):
        assert (stratum[("split", "first")] == "train").mean() == pytest.approx(0.6, abs=0.1)


def test_same_seed_same_split(manifest: Path, tmp_path: Path) -> None:
    outs = [tmp_path / f"{name}.csv" for name in "abc"]
    for out, seed in zip(outs, ["1", "1", "2"], strict=True):
        main(["split", str(manifest), "--seed", seed, "--out", str(out)])
    texts = [out.read_text() for out in outs]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_existing_splits_and_held_out_sites_stay(manifest: Path, tmp_path: Path) -> None:
    frame = read_manifest(manifest)
    frame.loc[frame["patient_id"] == "p000", "split"] = "test"
    frame.loc[frame["scan_id"] == "s001_0", "split"] = "val"  # the patient's other scan joins it
    write_manifest(frame, manifest)
    out = tmp_path / "split.csv"
    fractions = ["--fractions", "train=1.0"]
    assert main(["split", str(manifest), *fractions, "--test-sites", "site_b", "--out", str(out)]) == 0
    split = read_manifest(out).set_index("scan_id")
    assert split.loc["s000_0", "split"] == "test"
    assert split.loc[["s001_0", "s001_1"], "split"].tolist() == ["val", "val"]
    assert (split.loc[split["site"] == "site_b", "split"] == "test").all()
    assert (split.loc[split["site"] == "site_a", "split"].drop(["s000_0", "s001_0", "s001_1"]) == "train").all()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--fractions", "train=0.7,test=0.7"], "add up to 1"),
        (["--fractions", "trian=1.0"], "unknown split trian"),
        (["--test-sites", "site_z"], "no scan comes from site_z"),
    ],
)
def test_wrong_requests_are_refused(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert main(["split", str(manifest), *arguments, "--out", str(tmp_path / "o.csv")]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert "Fix:" in error
    assert not (tmp_path / "o.csv").exists()


def test_rare_labels_are_divided_as_evenly_as_whole_patients_allow(tmp_path: Path) -> None:
    """Ten labels of 4 to 40 %, many of them together: no split is three positive patients off, whatever the seed."""
    rng = np.random.default_rng(1)
    rates = np.linspace(0.04, 0.4, 10)
    sick = rng.random((400, 1)) < 0.5
    values = (rng.random((400, 10)) < rates * 2) & sick
    frame = pd.DataFrame({"scan_id": [f"s{n}" for n in range(400)], "path": "x", "format": "dicom", "split": ""})
    frame["patient_id"] = frame["study_id"] = frame["scan_id"]
    frame["site"] = rng.choice(["a", "b"], 400, p=[0.8, 0.2])
    for number in range(10):
        frame[f"label:L{number}"] = pd.array(values[:, number].astype(int), "Int8")
    frame.loc[rng.random(400) < 0.2, "label:L3"] = pd.NA
    fractions = {"train": 0.6, "val": 0.15, "test": 0.25}
    for seed in range(5):
        split = assign_splits(frame, fractions, seed)
        for column, value in [(f"label:L{n}", v) for n in range(10) for v in (0, 1)] + [("site", "a"), ("site", "b")]:
            having = frame[column].eq(value).fillna(False)
            for name, share in fractions.items():
                off = (split.loc[having, "split"] == name).sum() - share * having.sum()
                assert abs(off) <= (5 if value == 0 else 2.5), (seed, column, value, name)


def test_a_mistyped_patient_number_does_not_tear_a_study_apart(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = read_manifest(manifest)
    frame["study_id"] = "study_" + frame["scan_id"]
    frame.loc[frame["scan_id"].isin(["s001_0", "s004_0"]), "study_id"] = "x"
    frame.loc[frame["scan_id"].isin(["s001_1", "s007_0"]), "study_id"] = "y"  # so 1, 4 and 7 belong together
    write_manifest(frame, manifest)
    seen = set()
    for seed in range(6):
        out = tmp_path / f"{seed}.csv"
        assert main(["split", str(manifest), "--seed", str(seed), "--out", str(out)]) == 0
        split = read_manifest(out)
        together = split.loc[split["patient_id"].isin(["p001", "p004", "p007"]), "split"]
        assert len(set(together)) == 1
        seen.add(together.iloc[0])
    assert len(seen) > 1
    assert (
        "2 studies have scans of several patient numbers; the 4 numbers were kept together" in capsys.readouterr().out
    )


def test_scans_that_belong_together_in_two_splits_are_refused(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = read_manifest(manifest)
    for scan, study, split in [("s001_0", "x", "train"), ("s002_0", "x", ""), ("s003_0", "y", "test")]:
        frame.loc[frame["scan_id"] == scan, ["study_id", "split"]] = [study, split]
    frame.loc[frame["scan_id"] == "s002_0", "patient_id"] = "p003"  # joins the studies x and y
    write_manifest(frame, manifest)
    assert main(["split", str(manifest), "--out", str(tmp_path / "o.csv")]) == 2
    assert "belong together" in capsys.readouterr().err


def check(*arguments: object) -> int:
    return main(["split", "--check", *map(str, arguments)])


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two disjoint manifests: an archive without splits, and a clinic's with."""
    paths = (tmp_path / "archive.csv", tmp_path / "clinic.csv")
    for path, splits in zip(paths, (["", "", ""], ["train", "test", "test"]), strict=True):
        rows = [
            f"{path.stem}{n},{path.stem}{n},dicom,{path.stem}_p{n},{path.stem}_t{n},{path.stem}_e{n},{split}"
            for n, split in enumerate(splits)
        ]
        path.write_text("\n".join(["scan_id,path,format,patient_id,study_id,series_id,split", *rows]) + "\n")
    return paths


@pytest.mark.parametrize(
    ("kind", "column"),
    [("patient", "patient_id"), ("study", "study_id"), ("series", "series_id"), ("scan", "scan_id")],
)
def test_the_check_finds_what_is_in_two_splits(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str], kind: str, column: str
) -> None:
    assert check(*two) == 0
    out = capsys.readouterr().out
    assert "disjoint: among 6 scans of 6 patients in 3 splits (pretrain, train, test)" in out
    frame = read_manifest(two[1])
    frame.loc[1, column] = read_manifest(two[0]).loc[2, column]
    write_manifest(frame, two[1])
    assert check(*two) == 1
    out = capsys.readouterr().out
    assert f"{kind} {frame.loc[1, column]}: scan archive2 in pretrain" in out
    assert "NOT disjoint: 1 identifiers" in out
    assert check(*two, "--json") == 1
    outcome = json.loads(capsys.readouterr().out)
    assert [(leak["kind"], leak["split_a"], leak["split_b"]) for leak in outcome["shared"]] == [
        (kind, "pretrain", "test")
    ]


def test_the_check_lists_the_first_leaks_and_counts_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, split in (("a", "train"), ("b", "test")):
        rows = [f"{name}{n},{name}{n},dicom,p{n},{split}" for n in range(50)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["scan_id,path,format,patient_id,split", *rows]) + "\n")
    assert check(tmp_path / "a.csv", tmp_path / "b.csv") == 1
    out = capsys.readouterr().out
    assert "in two splits: 50, the first 20" in out
    assert out.count("patient p") == 20


def test_leaks_within_one_manifest_are_found_too(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    frame = read_manifest(two[1])
    frame.loc[0, "study_id"] = frame.loc[1, "study_id"]
    write_manifest(frame, two[1])
    assert check(*two) == 1
    assert "LEAK: study clinic_t1 is in two splits: train (scan clinic0) and test" in capsys.readouterr().out
    assert check(two[1], "--json") == 1
    assert json.loads(capsys.readouterr().out)["disjoint"] is False


def test_rows_without_a_split_are_said_not_to_be_checked(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    frame = read_manifest(two[1])
    frame.loc[0, ["split", "patient_id"]] = ["", "archive_p0"]
    write_manifest(frame, two[1])
    assert check(*two) == 0
    assert "clinic.csv: 1 scans have no split and weren't looked at" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--check", "M", "--out", "x.csv"], "--out means nothing with --check"),
        (["--check", "M", "--seed", "0"], "--seed means nothing with --check"),
        (["M", "--out", "x.csv", "--cache", "c"], "--cache means nothing without --check"),
        (["M"], "--out is missing"),
        (["M", "M", "--out", "x.csv"], "2 manifests can't be split together"),
        (["--check", "M"], "all scans are in one split (pretrain)"),
        (["--check", "M", "--cache", "nowhere"], "the cache doesn't exist"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert main(["split", *(str(two[0]) if part == "M" else part for part in arguments)]) == 2
    assert expected in capsys.readouterr().err
