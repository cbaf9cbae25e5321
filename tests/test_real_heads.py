"""The main job on real scans: index -> preprocess -> pretrain -> weights -> embed, with the commands of the README."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.uid import RLELossless

import fmct
from fmct.cli import main

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
SMALL = ["--spacing-mm", "4.5", "--shape-voxels", "48"]


@pytest.fixture(scope="module")
def work(shared_scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real scans, indexed, preprocessed and trained on."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "scans").symlink_to(shared_scans)
    manifest, cache = folder / "scans" / "manifest.csv", folder / "cache"
    key = ["--key-file", str(folder / "key")]
    hollow = ["--skip-rules", "NOT_A_HEAD"]  # the phantom is a skull without a brain
    assert main(["index", str(folder / "scans"), "--out", str(manifest), *key, *hollow]) == 3
    assert main(["preprocess", str(manifest), "--cache", str(cache), *SMALL]) == 0
    where = ["--data.manifest", str(manifest), "--data.cache", str(cache), "--trainer.runs", str(folder / "runs")]
    for name, more in {"pretrain_mae_smoke": ["--data.val_splits", "[]"], "pretrain_dino_smoke": []}.items():
        assert main(["fit", "--config", str(EXPERIMENTS / f"{name}.yaml"), *where, *more]) == 0
    return folder


def test_every_series_is_in_the_manifest_or_rejected_with_a_reason(work: Path) -> None:
    manifest = pd.read_csv(work / "scans" / "manifest.csv", dtype=str)
    paths = set(manifest["path"])
    assert {"dicom/ge_head_tilt", "dicom/headneck_pycerr", "nifti/ge_upper14_sheared.nii.gz"} <= paths
    study = [path for path in paths if path.startswith("dicom/philips_phantom_study")]
    assert study == ["dicom/philips_phantom_study/S2010"]
    rejects = pd.read_csv(work / "scans" / "rejects.csv")
    by_path = {path: set(rows["code"]) for path, rows in rejects.groupby("path")}
    assert by_path["dicom/philips_phantom_study/S1000/I10"] == {"LOCALIZER"}
    assert by_path["dicom/philips_phantom_study/S4010"] == {"SECONDARY"}
    no_hu = rejects[rejects["code"] == "IMPLAUSIBLE_HU"]["path"].tolist()
    assert [Path(path).name for path in sorted(no_hu)] == [
        "ct_pitch_uint8_notHU.nii.gz",
        "ct_template_with_skull_2mm.nii.gz",
        "vtk_headsq_rawvalues.nii.gz",
    ]


@pytest.mark.parametrize("name", ["pretrain_mae_smoke", "pretrain_dino_smoke"])
def test_embeddings_of_real_scans_are_finite_and_different(work: Path, name: str) -> None:
    out = work / f"{name}.parquet"
    assert main(["embed", str(work / "scans"), "--weights", str(work / "runs" / name), "--out", str(out)]) == 3
    embeddings = pd.read_parquet(out)
    vectors = embeddings.drop(columns="scan_id").to_numpy(np.float64)
    indexed = pd.read_csv(work / "scans" / "manifest.csv", dtype=str)
    hollow = set(indexed["scan_id"][indexed["path"].str.contains("phantom")])
    assert set(indexed["scan_id"]) - hollow <= set(embeddings["scan_id"]) <= set(indexed["scan_id"])
    assert np.isfinite(vectors).all()
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    assert distances[~np.eye(len(vectors), dtype=bool)].min() > 1e-3
    from_cache = work / f"{name}_cache.parquet"
    weights = str(work / "runs" / name)
    assert main(["embed", str(work / "cache"), "--weights", weights, "--out", str(from_cache)]) == 0
    merged = embeddings.merge(pd.read_parquet(from_cache), on="scan_id")
    columns = [column.removesuffix("_x") for column in merged if column.endswith("_x")]
    for column in columns:
        np.testing.assert_allclose(merged[f"{column}_x"], merged[f"{column}_y"], atol=1e-5)


def test_the_same_scan_stored_in_two_ways_has_one_embedding(work: Path, tmp_path: Path) -> None:
    original = work / "scans" / "dicom" / "ge_head_tilt"
    copy = tmp_path / "anything" / "at" / "all"
    copy.mkdir(parents=True)
    for number, path in enumerate(sorted(original.iterdir(), reverse=True)):
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(copy / f"{number}", enforce_file_format=True)
    (copy / "notes.txt").write_text("not a scan")
    model = fmct.load(work / "runs" / "pretrain_mae_smoke")
    assert np.array_equal(model.embed(original), model.embed(copy))


def test_lossless_compression_of_a_cq500_slice_changes_nothing(shared_scans: Path, work: Path, tmp_path: Path) -> None:
    """The slice that ships plain and as JPEG 2000, stacked twelve times at 5 mm: two series, one embedding."""
    model = fmct.load(work / "runs" / "pretrain_mae_smoke")
    embeddings = []
    for name in ("693_UNCR.dcm", "693_J2KR.dcm"):
        folder = tmp_path / name
        folder.mkdir()
        for k in range(24):
            dataset = pydicom.dcmread(shared_scans / "dicom" / "single_files" / name)
            x, y, _ = dataset.ImagePositionPatient
            dataset.ImagePositionPatient = [x, y, 5.0 * k]
            dataset.SOPInstanceUID = f"{dataset.SOPInstanceUID}.{k}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.save_as(folder / f"{k}.dcm")
        embeddings.append(model.embed(folder))
    assert np.array_equal(*embeddings)


def test_the_real_scans_are_left_as_they_were(shared: Path, shared_scans: Path, work: Path) -> None:
    for path in (shared / "data" / "nifti").glob("*.nii.gz"):
        assert (shared_scans / "nifti" / path.name).read_bytes() == path.read_bytes()
