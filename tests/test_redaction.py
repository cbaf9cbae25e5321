"""With --redact-paths nothing that names a patient is written, printed or logged, though every folder and file does."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from index_run import NO_PIXEL_RULES, index, manifest, reject_rows
from pydicom import dcmread
from pydicom.uid import EncapsulatedPDFStorage
from synthetic_series import head_like, stacked, write_series

from fmct.cli import main
from fmct.data.manifest import read_manifest
from fmct.data.path_names import is_redacted

NAME = "DOE_JOHN_MRN0012345"
SECRETS = (b"DOE^", b"DOE_", b"DOE ", b"JOHN", b"Roe^", b"MRN00", b"19610203", b"20190405", b"ACC77", b"Elm Street")
"""Long enough not to come about by chance in hashes and compressed voxels."""
IDENTIFYING = {
    "AccessionNumber": "ACC77",
    "OtherPatientIDs": "MRN0012345",
    "PatientAddress": "Elm Street 1",
    "ReferringPhysicianName": "Roe^Jane",
    "StudyID": "MRN0012345",
    "PatientComments": "DOE, JOHN",
    "StudyDescription": "HEAD OF DOE JOHN",
    "SeriesDescription": "DOE JOHN 5mm",
    "ImageComments": "born 19610203",
    "InstitutionName": "Elm Street Hospital",
    "ContrastBolusAgent": "none for JOHN",
    "AcquisitionDate": "20190405",
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Good and bad scans of one patient, who is named by every folder, file and header."""
    root = tmp_path / "in"
    named = root / NAME
    good = {"ContrastBolusAgent": None}
    hu, places = head_like(), stacked(12)

    def series(folder: str, values: np.ndarray = hu, where: np.ndarray = places, **tags: object) -> list[Path]:
        names = [f"{NAME} {k}.dcm" for k in range(len(values))]
        return write_series(named / f"JOHN {folder}", values, where, names=names, **{**IDENTIFYING, **tags})

    study = {"StudyInstanceUID": "1.2.3"}
    series("good", **good, **study)
    series("other", head_like(9), stacked(9, 12.0), **good, **study)
    shutil.copytree(named / "JOHN good", named / "JOHN copy")
    series("lost later", **good)
    series("broken later", **good)
    series("contrast")
    series("hole", where=np.delete(stacked(13), 6, axis=0))
    series("nowhere", ImagePositionPatient=[[1, 2, 3]] * 11 + [None])
    series("unscaled", PixelSpacing=None)
    series("pdf", hu[:1], SOPClassUID=EncapsulatedPDFStorage)
    series("base", head_like(11), stacked(11), KVP="140", StudyInstanceUID="1.2.4")
    series("vertex", head_like(11), stacked(11, 8, (-90, -90, 88)), StudyInstanceUID="1.2.4")
    for path in series("odd", PatientAge=None):
        path.write_bytes(path.read_bytes().replace(b"19610203", b"JOHN^DOE").replace(b"120 ", b"DOE "))
    (cut, *_) = series("cut")
    cut.write_bytes(cut.read_bytes()[:420])
    (short, *_) = series("short")
    short.write_bytes(short.read_bytes()[:-300])
    (named / f"{NAME}.dcm").write_bytes(b"DOE^JOHN " * 50)
    (named / f"{NAME}.nii").write_bytes(b"DOE^JOHN " * 50)
    (named / f"{NAME} empty.dcm").touch()
    (named / f"{NAME} notes.txt").write_text("DOE^JOHN " * 50)
    image = nib.Nifti1Image(head_like(seed=7).T, np.diag([4.5, 6, 8, 1]))
    image.header["descrip"] = b"DOE^JOHN 19610203"
    nib.save(image, named / f"{NAME} head.nii.gz")
    shutil.copy(named / f"{NAME} head.nii.gz", named / f"{NAME} again.nii.gz")
    (named / f"{NAME} link.dcm").symlink_to("/etc/hostname")
    return root


def leaks(folder: Path, besides: Path, texts: list[str]) -> list[str]:
    """Return what in some texts, and in and about all files but those of one folder, names the patient."""
    written = [path for path in folder.rglob("*") if not path.is_relative_to(besides)]
    contents = {str(path.relative_to(folder)): path.read_bytes() for path in written if path.is_file()}
    contents |= {f"name of {path.name}": path.name.encode() for path in written}
    contents |= {f"text {number}": text.encode() for number, text in enumerate(texts)}
    assert any(name.endswith(".headers.sqlite") for name in contents)
    return [f"{secret!r} in {name}" for name, content in contents.items() for secret in SECRETS if secret in content]


def test_nothing_names_the_patient(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FMCT_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setattr(logging.getLogger("pydicom"), "propagate", False)  # what it logs goes nowhere without a handler
    arguments = ["--redact-paths", "--all-series", "--debug"]
    assert index(archive, *arguments, "--add-rules", "CONTRAST") == 3
    assert index(archive, *arguments, skip="NOT_A_HEAD") == 3  # looks at pixels, too
    parquet = [str(archive), "--out", str(tmp_path / "p" / "m.parquet"), "--skip-rules", NO_PIXEL_RULES, "--json"]
    assert main(["index", *parquet, *arguments, "--workers", "2"]) == 3
    frame = manifest(tmp_path)
    assert len(frame) >= 6
    assert all(is_redacted(path) for path in [*frame["path"], *reject_rows(tmp_path)["path"]])
    codes = set(reject_rows(tmp_path)["code"])
    assert codes >= {"GAP", "NO_GEOMETRY", "SPLIT_HEAD", "UNREADABLE", "EMPTY", "COPY"}

    shutil.rmtree(archive / NAME / "JOHN lost later")
    for path in (archive / NAME / "JOHN broken later").iterdir():
        path.write_bytes(path.read_bytes()[:-500])
    cache = ["--spacing-mm", "5", "--no-head-crop", "--debug"]
    assert main(["preprocess", str(tmp_path / "m.csv"), "--cache", str(tmp_path / "cache"), *cache]) == 3
    elsewhere = ["--root", str(tmp_path / "p"), "--cache", str(tmp_path / "other")]
    assert main(["preprocess", str(tmp_path / "m.csv"), *elsewhere, *cache]) == 2
    (rejected,) = (tmp_path / "cache").glob("*/rejects.csv")
    assert {"MISSING"} <= set(reject_rows(rejected.parent)["code"])
    assert len(list((tmp_path / "cache").rglob("*.b2nd"))) >= 4
    out, err = capfd.readouterr()
    assert leaks(tmp_path, archive, [out, err]) == []


def test_without_redaction_only_paths_name_the_patient(
    archive: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = archive / NAME
    for number, path in enumerate(sorted(plain.rglob("*"), reverse=True)):
        path.rename(path.with_name(f"x{number}{path.suffix if path.suffix != '.gz' else '.nii.gz'}"))
    plain.rename(archive / "x")
    assert index(archive, "--all-series", skip="NOT_A_HEAD") == 3
    cache = ["--cache", str(tmp_path / "cache"), "--spacing-mm", "5", "--no-head-crop"]
    main(["preprocess", str(tmp_path / "m.csv"), *cache])
    out, err = capfd.readouterr()
    assert leaks(tmp_path, archive, [out, err]) == []
    assert len(manifest(tmp_path)) >= 6


def test_redacted_paths_lead_to_the_same_scans(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (archive / NAME / f"{NAME} again.nii.gz").unlink()  # of copies the first is taken, and hashes have another order
    index(archive)
    assert leaks(tmp_path, archive, [])  # paths do name the patient here, and would be noticed above
    plain = read_manifest(tmp_path / "m.csv").set_index("scan_id").drop(columns="path")
    rejected = sorted(map(tuple, reject_rows(tmp_path)[["code", "scan_id"]].values.tolist()))
    index(archive, "--redact-paths")
    redacted = read_manifest(tmp_path / "m.csv").set_index("scan_id").drop(columns="path")
    assert redacted.sort_index().equals(plain.sort_index())
    assert sorted(map(tuple, reject_rows(tmp_path)[["code", "scan_id"]].values.tolist())) == rejected
    arguments = ["preprocess", str(tmp_path / "m.csv"), "--spacing-mm", "5", "--no-head-crop", "--cache"]
    monkeypatch.setenv("FMCT_KEY_FILE", str(tmp_path / "none"))
    capsys.readouterr()
    assert main([*arguments, str(tmp_path / "cache")]) == 2
    assert "the key that the paths were hashed with isn't here" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    monkeypatch.setenv("FMCT_KEY_FILE", str(tmp_path / "key"))
    main([*arguments, str(tmp_path / "cache")])
    assert len(list((tmp_path / "cache").rglob("*.b2nd"))) >= len(plain) - 1


def test_headers_of_the_archive_really_name_the_patient(archive: Path) -> None:
    (path, *_) = sorted((archive / NAME / "JOHN good").iterdir())
    assert all(secret in path.read_bytes() for secret in (b"DOE^JOHN", b"MRN0012345", b"19610203", b"Elm Street"))
    assert str(dcmread(path).PatientName) == "DOE^JOHN"
