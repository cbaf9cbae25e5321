"""Copies are told from what only looks like one, and a scan's name from what else is in its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from index_run import index, manifest, reject_rows, rejects
from pydicom import dcmread
from synthetic_series import head_like, stacked, write_series

from fmct.data.series import find_scans


def test_copies_of_slices_are_taken_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hu, places = head_like(), stacked(12)
    paths = write_series(tmp_path / "in" / "a", hu, places)
    shutil.copytree(tmp_path / "in" / "a", tmp_path / "in" / "b")
    dataset = dcmread(paths[3])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.save_as(tmp_path / "in" / "again")
    assert index(tmp_path / "in", "--json") == 0
    assert json.loads(capsys.readouterr().out)["files"]["identical copies of slices"] == 13
    (scan,), _ = find_scans([tmp_path / "in"])
    assert scan.path == tmp_path / "in" / "a"
    assert manifest(tmp_path)["path"].tolist() == ["in/a"]
    assert np.array_equal(scan.load().hu, hu)


def test_of_a_broken_and_a_sound_copy_the_sound_one_is_used(tmp_path: Path) -> None:
    hu, places = head_like(), stacked(12)
    paths = write_series(tmp_path / "in" / "a", hu, places)
    (tmp_path / "in" / "b").mkdir()
    shutil.copy(paths[5], tmp_path / "in" / "b")
    shutil.copy(paths[7], tmp_path / "in" / "b")
    for broken in (paths[5], tmp_path / "in" / "b" / "007.dcm"):
        broken.write_bytes(broken.read_bytes()[:-100])
    assert index(tmp_path / "in") == 3
    assert rejects(tmp_path) == {"in/a/005.dcm": "UNREADABLE", "in/b/007.dcm": "UNREADABLE"}
    assert manifest(tmp_path)["n_slices"].tolist() == [12]
    (scan,), _ = find_scans([tmp_path / "in"])
    assert np.array_equal(scan.load().hu, hu)


NO_UIDS = {"StudyInstanceUID": "", "SeriesInstanceUID": "", "FrameOfReferenceUID": ""}


def test_series_without_any_uid_are_told_apart_by_folder_and_pixels(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name, seed in (("a", 0), ("b", 1), ("copy", 0)):
        paths = write_series(root / name, head_like(seed=seed), stacked(12), **NO_UIDS, PatientID="")
        for path in paths:
            dataset = dcmread(path)
            dataset.SOPInstanceUID = ""
            dataset.save_as(path)
    assert index(root, "--all-series") == 3
    frame = manifest(tmp_path)
    assert frame["path"].tolist() == ["in/a", "in/b"]
    assert frame["patient_id"].nunique() == 2
    assert rejects(tmp_path) == {"in/copy": "COPY"}


def test_one_series_uid_in_many_studies_is_no_copy(tmp_path: Path) -> None:
    same = {"SeriesInstanceUID": "1.2.3"}
    for number in range(3):
        write_series(tmp_path / "in" / f"p{number}", head_like(seed=number), stacked(12), PatientID=f"{number}", **same)
    assert index(tmp_path / "in") == 0
    frame = manifest(tmp_path)
    assert len(frame) == frame["scan_id"].nunique() == frame["patient_id"].nunique() == 3


def test_the_same_images_in_two_studies_are_a_copy(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for path in write_series(tmp_path / "in" / "a", head_like(), stacked(12)):
        dataset = dcmread(path)
        dataset.StudyInstanceUID = "1.2.99"
        (tmp_path / "in" / "b").mkdir(exist_ok=True)
        dataset.save_as(tmp_path / "in" / "b" / path.name)
    assert index(tmp_path / "in") == 3
    assert reject_rows(tmp_path)[["path", "code", "detail"]].values.tolist() == [["in/b", "COPY", "the same as in/a"]]


def test_a_series_that_has_grown_is_another_scan(tmp_path: Path) -> None:
    hu, places = head_like(14), stacked(14)
    paths = write_series(tmp_path / "in", hu, places)
    aside = [path.rename(tmp_path / path.name) for path in paths[12:]]
    assert index(tmp_path / "in") == 0
    before = manifest(tmp_path)["scan_id"].iloc[0]
    for path in aside:
        path.rename(tmp_path / "in" / path.name)
    assert index(tmp_path / "in") == 0
    after = manifest(tmp_path).iloc[0]
    assert after["n_slices"] == 14
    assert after["scan_id"] != before  # or a cache would keep the shorter one


def test_series_names_do_not_depend_on_where_files_lie(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in", head_like(), stacked(12))
    assert index(tmp_path / "in") == 0
    before = manifest(tmp_path)["scan_id"].tolist()
    elsewhere = tmp_path / "in" / "deep" / "er"
    elsewhere.mkdir(parents=True)
    for number, path in enumerate(reversed(paths)):
        path.rename(elsewhere / f"x{number}")
    assert index(tmp_path / "in") == 0
    assert manifest(tmp_path)["scan_id"].tolist() == before


def test_nifti_files_and_their_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "in"
    (root / "other").mkdir(parents=True)
    head = nib.Nifti1Image(head_like().T, np.diag([4.5, 6, 8, 1]))
    nib.save(head, root / "b.nii.gz")
    shutil.copy(root / "b.nii.gz", root / "other" / "a.nii.gz")
    nib.save(nib.Nifti1Image(head_like(seed=1).T, np.diag([4.5, 6, 8, 1])), root / "other" / "b.nii.gz")
    nib.save(nib.Nifti1Image(head_like(9).T, np.diag([4.5, 6, 8, 1])), root / "short.nii")
    assert index(root) == 3
    assert manifest(tmp_path)["path"].tolist() == ["in/b.nii.gz", "in/other/b.nii.gz"]
    assert rejects(tmp_path) == {"in/other/a.nii.gz": "COPY", "in/short.nii": "SHORT_COVERAGE"}
    assert "1 names of NIfTI files come more than once" in capsys.readouterr().out
