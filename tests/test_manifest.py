"""The manifest: what is read is what was written, and what is wrong is refused with its place."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fmct.console.errors import UsageError
from fmct.data.manifest import COLUMNS, check_splits, label_names, read_manifest, scan_path, write_manifest


def rows(**columns: object) -> pd.DataFrame:
    base = {
        "scan_id": ["00123", "00124", "00125"],
        "path": ["a/1", "a/2", "b.nii.gz"],
        "format": ["dicom", "dicom", "nifti"],
        "patient_id": ["0007", "0007", "0008"],
    }
    return pd.DataFrame({**base, **columns})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_what_is_written_is_read(folder: Path, name: str) -> None:
    frame = rows(
        **{
            "label:ICH": pd.array([1, 0, None], dtype="Int8"),
            "age": [61.5, np.nan, 3.0],
            "split": ["train", "train", ""],
        },
        mine=["x", "y", "z"],
    )
    write_manifest(frame, folder / name)
    write_manifest(read_manifest(folder / name), folder / name)
    back = read_manifest(folder / name)
    assert back["scan_id"].tolist() == ["00123", "00124", "00125"]
    assert back["patient_id"].tolist() == ["0007", "0007", "0008"]
    assert back["label:ICH"].dtype == "Int8"
    assert back["label:ICH"].astype("Float64").to_numpy(float, np.nan) == pytest.approx([1, 0, np.nan], nan_ok=True)
    assert back["age"].to_numpy() == pytest.approx([61.5, np.nan, 3.0], nan_ok=True)
    assert back["split"].tolist() == ["train", "train", ""]
    assert back["kernel"].tolist() == ["", "", ""]
    assert label_names(back) == ["ICH"]
    assert back.columns.tolist() == [*COLUMNS, "mine", "label:ICH"]
    assert "1.0" not in (folder / name).read_text(errors="ignore") or name == "m.parquet"


def test_identifiers_stay_text_in_plain_csv(folder: Path) -> None:
    (folder / "m.csv").write_text("scan_id,path,format,patient_id,label:IVH\n007,x,dicom,NA,1\n1e5,y,nifti,0012,\n")
    back = read_manifest(folder / "m.csv")
    assert back["scan_id"].tolist() == ["007", "1e5"]
    assert back["patient_id"].tolist() == ["NA", "0012"]
    assert back["label:IVH"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("columns", "message", "place"),
    [
        ({"scan_id": ["1", "2", "1"]}, "the same scan_id comes twice", "line 4 (scan 1)"),
        ({"split": ["train", "test", "val"]}, "patient 0007 is in two splits: train", "m.csv"),
        ({"split": ["train", "trian", ""]}, "split is 'trian'", "line 3 (scan 00124)"),
        ({"format": ["dicom", "DICOM", "nifti"]}, "format is 'DICOM'", "line 3"),
        ({"label:ICH": ["1", "2", "0"]}, "label:ICH is 2; it must be 1, 0 or empty", "line 3 (scan 00124)"),
        ({"label:ICH": ["1", "yes", "0"]}, "label:ICH is 'yes', not a number", "line 3"),
        ({"age": ["61", "x", ""]}, "age is 'x', not a number", "line 3"),
        ({"path": ["a", "b/../../c", "d"]}, "leads out of the root", "line 3"),
        ({"path": ["a", "/etc/passwd", "d"]}, "leads out of the root", "line 3"),
        ({"patient_id": ["a", "", "b"]}, "patient_id is empty", "line 3"),
        ({"label: ": ["1", "0", "0"]}, "a label column has no name", "m.csv"),
    ],
)
def test_errors_name_the_row(folder: Path, columns: dict[str, list[str]], message: str, place: str) -> None:
    rows(**columns).to_csv(folder / "m.csv", index=False)
    with pytest.raises(UsageError) as raised:
        read_manifest(folder / "m.csv")
    assert message in raised.value.what
    assert place in raised.value.where
    assert raised.value.fix


def test_missing_and_empty_manifests(folder: Path) -> None:
    rows().to_csv(folder / "manifest.csv", index=False)
    with pytest.raises(UsageError, match=r"did you mean .*manifest\.csv"):
        read_manifest(folder / "manifst.csv")
    rows().drop(columns="patient_id").assign(patientid="x").to_csv(folder / "p.csv", index=False)
    with pytest.raises(UsageError, match=r"no column 'patient_id'.*\n.*\n.*rename the column 'patientid'"):
        read_manifest(folder / "p.csv")
    rows().iloc[:0].to_csv(folder / "e.csv", index=False)
    with pytest.raises(UsageError, match="no rows"):
        read_manifest(folder / "e.csv")
    (folder / "z.csv").touch()
    with pytest.raises(UsageError, match="empty file"):
        read_manifest(folder / "z.csv")
    (folder / "z.parquet").write_bytes(b"not parquet")
    with pytest.raises(UsageError, match="can't be read"):
        read_manifest(folder / "z.parquet")
    with pytest.raises(UsageError, match=r"csv or \.parquet"):
        write_manifest(rows(), folder / "m.xlsx")
    rows(patient_id=[7, 7, 8]).to_parquet(folder / "n.parquet")
    with pytest.raises(UsageError, match="holds numbers, not text"):
        read_manifest(folder / "n.parquet")


def test_paths_stay_within_the_root(folder: Path) -> None:
    archive, outside = folder / "archive", folder / "outside"
    (archive / "a" / "1").mkdir(parents=True)
    outside.mkdir()
    (archive / "link").symlink_to(outside)
    (archive / "inner").symlink_to(archive / "a")
    paths = [str(archive.resolve() / "a" / "1"), "link", "inner/1"]
    rows(path=paths).to_csv(archive / "m.csv", index=False)
    frame = read_manifest(archive / "m.csv")
    assert frame["path"].tolist() == ["a/1", "link", "inner/1"]
    assert scan_path(frame.iloc[0], archive) == (archive / "a" / "1").resolve()
    assert scan_path(frame.iloc[2].to_dict(), archive) == (archive / "a" / "1").resolve()
    with pytest.raises(UsageError, match="scan 00124 leads out of the root"):
        scan_path(frame.iloc[1], archive)
    elsewhere = folder / "elsewhere.csv"
    rows(path=["a/1", "a", "inner"]).to_csv(elsewhere, index=False)
    frame = read_manifest(elsewhere, root=archive)
    assert scan_path(frame.iloc[0], frame.attrs["root"]).is_dir()


def test_a_patient_has_one_split_across_manifests() -> None:
    one, other = rows(split="train"), rows(split=["train", "", "test"])
    with pytest.raises(UsageError, match=r"patient 0008 is in two splits: train \(scan 00125\) and test"):
        check_splits(one, other)
    check_splits(one, rows(split=["train", "", ""]))


def test_a_whole_archive_is_read_in_seconds(folder: Path) -> None:
    n = 361_663
    number = pd.Series(np.arange(n)).astype(str)
    frame = pd.DataFrame({
        "scan_id": "s" + number, "path": "site/" + number, "format": "dicom",
        "patient_id": "p" + (pd.Series(np.arange(n)) // 2).astype(str), "split": "pretrain", "kvp": 120.0,
        "label:ICH": pd.array(np.arange(n) % 2, dtype="Int8"),
    })  # fmt: skip
    write_manifest(frame, folder / "big.parquet")
    start = time.process_time()
    assert len(read_manifest(folder / "big.parquet")) == n
    assert time.process_time() - start < 10
