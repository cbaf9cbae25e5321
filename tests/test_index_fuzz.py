"""Damaged headers and cut files by the thousand: nothing breaks off, nothing hangs, and no file is lost."""

from __future__ import annotations

import json
import sqlite3
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from index_run import NO_PIXEL_RULES, index, reject_rows
from pydicom import dcmread
from pydicom.dataset import Dataset
from synthetic_series import head_like, stacked, write_series

from fmct.data.manifest import read_table

Random = np.random.Generator

NUMBERS = ["", "NaN", "inf", "-inf", "1e400", "-0", "1e-320", "x", "1\\2", "1,5", "65535", "-1", "0", "4294967296"]
TEXTS = ["", " ", "CT", "MR", "\\", "\\\\", "LOCALIZER", "Ünïcödé", "x" * 2000, "1.2.3", "..", "\x1b$B", "NaN", "0"]
TAGS = {
    "ImagePositionPatient": NUMBERS,
    "ImageOrientationPatient": [*NUMBERS, *(r"1\0\0\0\1\0", r"0\0\0\0\0\0", r"1\0\0\1\0\0", r"1\0\0\0\0\-1")],
    "PixelSpacing": [*NUMBERS, "1e-30\\1e-30", "1e30\\1e30", "0\\0", "-1\\1"],
    "KVP": NUMBERS,
    "RescaleSlope": NUMBERS,
    "RescaleIntercept": NUMBERS,
    "PatientAge": TEXTS,
    "PatientBirthDate": TEXTS,
    "StudyDate": TEXTS,
    "PatientID": TEXTS,
    "PatientSex": TEXTS,
    "Modality": TEXTS,
    "ImageType": TEXTS,
    "StudyInstanceUID": TEXTS,
    "SeriesInstanceUID": TEXTS,
    "SOPInstanceUID": TEXTS,
    "SOPClassUID": TEXTS,
    "ConvolutionKernel": TEXTS,
    "PhotometricInterpretation": TEXTS,
    "Manufacturer": TEXTS,
    "FrameOfReferenceUID": TEXTS,
    "NumberOfFrames": NUMBERS,
}
SHORTS = {"Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "PixelRepresentation"}


def other_value(content: bytes, path: Path, rng: Random) -> bytes:
    """Replace, remove or cut values of some elements."""
    path.write_bytes(content)
    dataset = dcmread(path, force=True)
    for _ in range(rng.integers(1, 4)):
        tag = str(rng.choice([*TAGS, *SHORTS]))
        if rng.random() < 0.2 or tag not in dataset:
            dataset.pop(tag, None)
        elif tag in SHORTS:
            setattr(dataset, tag, int(rng.choice([0, 1, 2, 255, 512, 65535])))
        else:
            element = dataset[tag]
            element._value = str(rng.choice(TAGS[tag]))
    try:
        dataset.save_as(path, enforce_file_format=False)
    except Exception:  # noqa: BLE001 - a value that pydicom can't write: bytes are changed instead
        return other_bytes(content, path, rng)
    return path.read_bytes()


def other_bytes(content: bytes, path: Path, rng: Random) -> bytes:
    """Change some bytes of the header."""
    changed = bytearray(content)
    for place in rng.integers(128, min(1400, len(content)), rng.integers(1, 12)):
        changed[place] = rng.integers(256)
    return bytes(changed)


def cut(content: bytes, path: Path, rng: Random) -> bytes:
    """Cut the file anywhere, most often in the header."""
    return content[: rng.integers(0, 1500 if rng.random() < 0.7 else len(content))]


def hole(content: bytes, path: Path, rng: Random) -> bytes:
    """Fill a block with zeros, as file systems do after a crash."""
    start = int(rng.integers(0, 1500))
    return content[:start] + bytes(int(rng.integers(1, 600))) + content[start + 600 :]


def longer(content: bytes, path: Path, rng: Random) -> bytes:
    """Put something into or after it."""
    place = int(rng.integers(132, len(content) + 1))
    return content[:place] + rng.bytes(int(rng.integers(1, 200))) + content[place:]


def bare(content: bytes, path: Path, rng: Random) -> bytes:
    """Take away the preamble, and damage what is left."""
    return other_bytes(content[132:], path, rng)


HARMS = [other_value, other_value, other_value, other_bytes, cut, hole, longer, bare]


def write_damaged(root: Path, count: int, seed: int) -> int:
    """Write series of which about a third of the files is damaged, and NIfTI files alike; return how many files."""
    rng = np.random.default_rng(seed)
    written = 0
    while written < count:
        folder = root / f"{written}"
        slices = int(rng.integers(10, 16))
        layout: dict[str, Any] = {} if rng.random() < 0.8 else {"StudyInstanceUID": "1.2.3"}
        paths = write_series(folder, head_like(slices, 16, 16), stacked(slices), pixel_mm=(10, 10), **layout)
        for path in paths:
            if rng.random() < 0.35:
                harm = HARMS[rng.integers(len(HARMS))]
                path.write_bytes(harm(path.read_bytes(), path, rng))
            if rng.random() < 0.1:
                path.rename(path.with_suffix(str(rng.choice(["", ".IMA", ".txt", ".nii", ".zip"]))))
        written += len(paths)
        image = folder / f"n{written}.nii{rng.choice(['', '.gz'])}"
        nib.save(nib.Nifti1Image(head_like(seed=written).T, np.diag([4.5, 6, 8, 1])), image)
        content = bytearray(image.read_bytes())
        for place in rng.integers(0, min(400, len(content)), rng.integers(0, 6)):
            content[place] = rng.integers(256)
        image.write_bytes(content[: rng.integers(0, len(content) + 1)] if rng.random() < 0.3 else content)
        written += 1
    return written


def check_all_are_accounted_for(root: Path, count: int, outcome: dict[str, Any]) -> None:
    """Hold the tables against what is on disk."""
    files = outcome["files"]
    rows = read_table(root.parent / "m.csv")
    rejected = reject_rows(root.parent)
    dicom = rows[rows["format"] == "dicom"]
    left_out = ("identical copies of slices", "slices shown by both parts of a head", "DICOM images in rejected series")
    left_out += ("images at a position that has one already",)
    images = dicom["n_slices"].astype(int).sum() + sum(files.get(name, 0) for name in left_out)
    assert images == files["DICOM images"]
    with sqlite3.connect(root.parent / "m.csv.headers.sqlite") as store:
        kinds = dict(store.execute("select kind, count(*) from files group by kind").fetchall())
        query = "select path || '/' || name from files join folders on folder = id where kind = 'reject'"
        named = {path for (path,) in store.execute(query)}
    store.close()
    assert sum(kinds.values()) == count
    assert kinds["reject"] == files["files that can't be used"]
    assert named <= set(rejected["path"])
    nifti = set(rows["path"][rows["format"] == "nifti"]) | set(rejected["path"])
    assert files["NIfTI files"] == kinds["nifti"] <= sum(path.endswith((".nii", ".nii.gz")) for path in nifti)
    assert (rejected["detail"] != "").all()


def fuzz(folder: Path, count: int, seed: int, capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    root = folder / "in"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = write_damaged(root, count, seed)
    capsys.readouterr()
    assert index(root, "--json", "--all-series") == 3
    outcome = json.loads(capsys.readouterr().out)
    check_all_are_accounted_for(root, written, outcome)
    assert "FAILED" not in outcome["rejected"], reject_rows(folder).query("code == 'FAILED'").to_string()
    first = (folder / "m.csv").read_bytes(), (folder / "rejects.csv").read_bytes()
    assert index(root, "--json", "--all-series", "--fresh") == 3
    assert ((folder / "m.csv").read_bytes(), (folder / "rejects.csv").read_bytes()) == first
    capsys.readouterr()
    assert index(root, "--json", skip=f"{NO_PIXEL_RULES},GAP,TOO_FEW_SLICES,SHORT_COVERAGE,SMALL_FIELD,SPLIT_HEAD") == 3
    check_all_are_accounted_for(root, written, json.loads(capsys.readouterr().out))
    assert index(root, "--json", skip="NOT_A_HEAD") == 3  # looks at pixels, too
    check_all_are_accounted_for(root, written, json.loads(capsys.readouterr().out))
    return outcome["rejected"]  # type: ignore[no-any-return]


def test_no_damage_loses_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = fuzz(tmp_path, 2000, 0, capsys)
    assert set(codes) >= {"UNREADABLE", "NO_GEOMETRY", "NOT_CT", "GAP", "MIXED_SIZE"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_no_damage_loses_a_file_at_length(tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    fuzz(tmp_path, 3000, seed, capsys)


def test_the_damage_is_real(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (path,) = write_series(tmp_path / "a", head_like(12)[:1], stacked(1))
    content = path.read_bytes()
    for harm in HARMS:
        assert harm(content, path, rng) != content
    assert isinstance(dcmread(path, force=True), Dataset)
