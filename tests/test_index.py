"""`fmct index`: what is found on real and synthetic folders, what is rejected and why, and what is never written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from synthetic_series import AXIAL, head_like, stacked, tilted, write_series

from fmct.console.command import main
from fmct.data.manifest import read_manifest
from fmct.data.rejection import RejectCode
from fmct.data.series import find_scans, survey
from fmct.index import COMMAND


def index(root: Path, *arguments: str) -> int:
    return main(
        COMMAND, [str(root), "--out", str(root.parent / "m.csv"), "--key-file", str(root.parent / "key"), *arguments]
    )


def rejects(folder: Path) -> dict[str, str]:
    return pd.read_csv(folder / "rejects.csv").set_index("path")["code"].to_dict()


def test_the_real_scans(shared_scans: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.parquet"
    arguments = [str(shared_scans), "--out", str(out), "--key-file", str(tmp_path / "key"), "--workers", "2", "--json"]
    assert main(COMMAND, arguments) == 3
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["root"] == str(shared_scans)
    assert outcome["scans"] == 8
    assert outcome["files"]["index objects"] == 5
    assert outcome["files"]["identical copies of slices"] == 1
    frame = read_manifest(out, root=shared_scans).set_index("path")
    assert rejects(tmp_path) == {
        "dicom/philips_phantom_study/S1000": "LOCALIZER",
        "dicom/philips_phantom_study/S4010": "SECONDARY",
        "dicom/single_files": "TOO_FEW_SLICES",
    }
    for name, path in [("ge_head_tilt", ""), ("headneck_pycerr", ""), ("philips_phantom_study", "S2010"),
                       ("philips_phantom_tilt_neg18", "")]:  # fmt: skip
        facts = json.loads((shared / "data" / "dicom" / name / "FACTS.json").read_text())
        facts = next(iter(facts["series"].values())) if "series" in facts else facts
        row = frame.loc[f"dicom/{name}/{path}".rstrip("/")]
        assert row["n_slices"] == facts["n_slices"]
        assert row["spacing_y_mm"] == pytest.approx(facts["pixel_spacing_mm_row_col"][0])
        assert row["slice_gap_max_mm"] == pytest.approx(facts["gap_along_normal_mm"]["max"], abs=1e-3)
        assert row["gantry_tilt_deg"] == pytest.approx(facts["gantry_tilt_deg_from_geometry_abs"], abs=0.01)
        assert row["manufacturer"] == facts["header_first_slice"]["Manufacturer"]
    assert frame.loc["nifti/ge_upper14_sheared.nii.gz", "gantry_tilt_deg"] == pytest.approx(18.5, abs=0.01)
    phantom = frame[frame.index.str.contains("philips")]
    assert len(set(phantom["patient_id"])) == 1
    assert len(set(phantom["study_id"])) == 2


@pytest.mark.parametrize("name", ["ge_head_tilt", "headneck_pycerr", "philips_phantom_tilt_neg18"])
def test_slices_are_in_spatial_order(shared_scans: Path, shared: Path, name: str) -> None:
    facts = json.loads((shared / "data" / "dicom" / name / "FACTS.json").read_text())
    (scan,), _ = find_scans([shared_scans / "dicom" / name])
    assert [header.path.name for header in scan.slices] == facts["files_in_spatial_order"]
    stack = scan.load()
    counts = pd.Series(stack.gaps_mm.round(2)).value_counts().to_dict()
    assert counts == {float(gap): n for gap, n in facts["gap_along_normal_mm"]["values_counts"].items()}
    assert (stack.hu == -32768).mean() == pytest.approx(facts["hu"].get("padding_fraction", 0), abs=1e-6)
    measured = stack.hu[stack.hu != -32768]
    expected = facts["hu"].get("min_excluding_padding", facts["hu"]["min"])
    assert (measured.min(), measured.max()) == (expected, facts["hu"]["max"])
    assert measured.mean() == pytest.approx(facts["hu"].get("mean_excluding_padding", facts["hu"]["mean"]), abs=0.01)


def test_compressed_slices_decode_alike(shared_scans: Path) -> None:
    from fmct.data.dicom import read_hu

    folder = shared_scans / "dicom" / "single_files"
    plain, lossless = read_hu(folder / "693_UNCR.dcm"), read_hu(folder / "693_J2KR.dcm")
    assert np.array_equal(plain, lossless)
    assert (plain == -32768).mean() == pytest.approx(0.213, abs=5e-4)
    measured = plain[plain != -32768].astype(float)
    assert (measured.sum() + -3024 * (plain == -32768).sum()) / plain.size == pytest.approx(-1035.563, abs=1e-3)
    odd = read_hu(folder / "J2K_pixelrep_mismatch.dcm").astype(float)
    odd[odd == -32768] = -2000
    assert (odd.min(), odd.max()) == (-2000, 1896)
    assert odd.mean() == pytest.approx(-658.437, abs=1e-3)


def test_order_comes_from_positions_alone(tmp_path: Path) -> None:
    hu = head_like()
    shuffled = np.random.default_rng(0).permutation(len(hu))
    names = [f"IM{5 * k % 12}x" for k in range(12)]
    write_series(
        tmp_path / "in", hu[shuffled], stacked(12)[shuffled], names=names,
        InstanceNumber=[int(k) for k in np.random.default_rng(1).permutation(12)], SpacingBetweenSlices=20.0,
    )  # fmt: skip
    (scan,), rejected = find_scans([tmp_path / "in"])
    assert not rejected
    stack = scan.load()
    assert np.array_equal(stack.hu, hu)
    assert stack.origins_ras_mm[:, 2] == pytest.approx(np.arange(12) * 5.0)
    assert stack.origins_ras_mm[0] == pytest.approx([30, 30, 0])
    assert stack.row_step_ras_mm == pytest.approx([0, -2.0, 0])
    assert stack.column_step_ras_mm == pytest.approx([-1.5, 0, 0])


def test_tilt_and_uneven_gaps_are_measured(tmp_path: Path) -> None:
    along = np.cumsum([0, *[4.2] * 5, 1.2, *[7.4] * 5])
    positions = np.array([-30, -30, 0]) + along[:, None] * np.array([0, 0, 1.0])
    write_series(tmp_path / "in", head_like(), positions, tilted(18.5), GantryDetectorTilt=-3.0)
    assert index(tmp_path / "in") == 0
    row = read_manifest(tmp_path / "m.csv").iloc[0]
    assert row["gantry_tilt_deg"] == pytest.approx(18.5, abs=0.01)
    assert row["slice_gap_max_mm"] == pytest.approx(7.4 * np.cos(np.radians(18.5)), abs=1e-3)
    assert row["spacing_x_mm"] == 1.5
    assert row["spacing_y_mm"] == 2.0
    assert row["n_slices"] == 12


def test_a_folder_of_everything(tmp_path: Path) -> None:
    root = tmp_path / "in"
    hu, places = head_like(), stacked(12)
    mixed = root / "Mixed"
    write_series(mixed, hu, places, names=[f"A{k}" for k in range(12)])
    write_series(mixed, hu + 1, places, names=[f"B{k}" for k in range(12)], ContrastBolusAgent="X")
    write_series(root / "mr", hu, places, Modality="MR")
    write_series(root / "scout", hu[:1], places[:1], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(root / "screens", hu, places, ImageType=["DERIVED", "SECONDARY", "SCREEN"])
    write_series(root / "short", hu[:7], places[:7])
    write_series(root / "bolus", np.stack([hu[6] + k for k in range(9)]), places[[0] * 9])
    write_series(root / "nowhere", hu, places, ImagePositionPatient=None)
    write_series(root / "one_lost", hu, places, ImageOrientationPatient=[list(AXIAL)] * 11 + [None])
    write_series(root / "crooked", hu, places, orientation=(1, 0, 0, 0, 2, 0))
    write_series(root / "sizes", hu, places, PixelSpacing=[[2.0, 2.0]] * 11 + [[1.0, 1.0]])
    write_series(
        root / "phases", np.repeat(hu, 2, axis=0) + np.arange(24)[:, None, None] % 2, np.repeat(places, 2, axis=0)
    )
    (root / "cut.dcm").write_bytes((mixed / "A0").read_bytes()[:300])
    (root / "empty.dcm").touch()
    (root / "empty").touch()
    (root / "damaged.nii.gz").write_bytes(b"\x1f\x8bnothing")
    (root / "README").write_text("x" * 400)
    (root / ".DS_Store").write_text("x")
    (root / "__MACOSX").mkdir()
    shutil.copy(mixed / "A1", root / "__MACOSX" / "A1")
    assert index(root) == 3
    frame = read_manifest(tmp_path / "m.csv")
    assert frame["path"].tolist() == ["in/Mixed", "in/Mixed"]
    assert sorted(frame["contrast"]) == [0, 1]
    assert rejects(tmp_path) == {
        "in/mr": "NOT_CT", "in/scout": "LOCALIZER", "in/screens": "SECONDARY", "in/short": "TOO_FEW_SLICES",
        "in/bolus": "ONE_POSITION", "in/nowhere": "NO_GEOMETRY", "in/one_lost": "NO_GEOMETRY",
        "in/crooked": "NO_GEOMETRY", "in/sizes": "MIXED_SIZE", "in/phases": "DUPLICATE_POSITION",
        "in/cut.dcm": "UNREADABLE", "in/empty.dcm": "EMPTY",
        "in/damaged.nii.gz": "UNREADABLE",
    }  # fmt: skip
    assert set(rejects(tmp_path).values()) <= set(RejectCode.__members__)


def test_copies_of_slices_are_taken_out(tmp_path: Path) -> None:
    hu, places = head_like(), stacked(12)
    paths = write_series(tmp_path / "in" / "a", hu, places)
    shutil.copytree(tmp_path / "in" / "a", tmp_path / "in" / "b")
    dataset = dcmread(paths[3])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.save_as(tmp_path / "in" / "again")
    findings = survey([tmp_path / "in"])
    assert not findings.rejects
    assert findings.counts["identical copies of slices"] == 13
    (scan,) = findings.scans
    assert scan.path == tmp_path / "in" / "a"
    assert np.array_equal(scan.load().hu, hu)


def test_a_scout_within_a_series_goes_alone(tmp_path: Path) -> None:
    hu, places = head_like(), stacked(12)
    paths = write_series(tmp_path / "in", hu, places)
    scout = dcmread(paths[0])
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.save_as(paths[0])
    findings = survey([tmp_path / "in"])
    assert [scan.facts["n_slices"] for scan in findings.scans] == [11]
    assert [reject.code for reject in findings.rejects] == [RejectCode.LOCALIZER]


def test_two_orientations_are_two_scans(tmp_path: Path) -> None:
    hu, places = head_like(slices=20), stacked(20)
    two = [list(AXIAL)] * 10 + [list(tilted(15))] * 10
    write_series(tmp_path / "in", hu, places, ImageOrientationPatient=two)
    scans, rejected = find_scans([tmp_path / "in"])
    assert not rejected
    assert sorted(scan.facts["gantry_tilt_deg"] for scan in scans) == pytest.approx([0, 15], abs=0.01)
    assert len({scan.scan_id for scan in scans}) == 2
    assert len({scan.facts["series_id"] for scan in scans}) == 1


def test_files_without_preamble_and_lists_of_files(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in", head_like(), stacked(12))
    for path in paths:
        dataset = dcmread(path)
        bare = Dataset()
        bare.update(dataset)
        bare.save_as(path, implicit_vr=True, little_endian=True)
        assert path.read_bytes()[128:132] != b"DICM"
    (scan,), rejected = find_scans(paths)
    assert not rejected
    assert np.array_equal(scan.load().hu, head_like())


def test_padding_and_missing_rescale(tmp_path: Path) -> None:
    hu = head_like()
    hu[:, :4] = -1500
    write_series(tmp_path / "padded", hu, stacked(12), PixelPaddingValue=-1500 + 1024)
    (scan,), _ = find_scans([tmp_path / "padded"])
    assert (scan.load().hu[:, :4] == -32768).all()
    assert np.array_equal(scan.load().hu[:, 4:], hu[:, 4:])
    write_series(tmp_path / "bare", hu, stacked(12), intercept=None)
    (scan,), _ = find_scans([tmp_path / "bare"])
    assert np.array_equal(scan.load().hu, hu)


def test_links_out_of_the_root_are_not_followed(tmp_path: Path) -> None:
    write_series(tmp_path / "private", head_like(), stacked(12))
    write_series(tmp_path / "in" / "mine", head_like(), stacked(12))
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "private")
    (tmp_path / "in" / "file.dcm").symlink_to(tmp_path / "private" / "000.dcm")
    scans, rejected = find_scans([tmp_path / "in"])
    assert [scan.path.name for scan in scans] == ["mine"]
    assert not rejected


def test_usage_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert index(tmp_path / "nowhere") == 2
    assert "there is no such folder" in capsys.readouterr().err
    (tmp_path / "in").mkdir()
    assert index(tmp_path / "in") == 2
    assert "no DICOM image and no NIfTI" in capsys.readouterr().err
    write_series(tmp_path / "in", head_like(), stacked(12))
    (tmp_path / "else").mkdir()
    assert index(tmp_path / "in", "--root", str(tmp_path / "else")) == 2
    (tmp_path / "key").write_text("short")
    assert index(tmp_path / "in") == 2
    assert "5 characters" in capsys.readouterr().err
