"""Patients and splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fmct.cli import main
from fmct.data.manifest import read_manifest, write_manifest


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
