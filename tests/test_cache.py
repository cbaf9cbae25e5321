"""The cache and `fmct preprocess`: what is written is read, what is broken is noticed, what is done stays done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from index_run import index
from synthetic_series import head_like, stacked, write_series

from fmct.console.command import main
from fmct.console.errors import FmctError, UsageError
from fmct.data.grid import Grid
from fmct.data.manifest import read_manifest, write_manifest
from fmct.data.preprocessing import IsotropicSettings
from fmct.data.rejection import RejectCode
from fmct.data.resampling import resample
from fmct.data.series import find_scans
from fmct.data.volumes import Volume, VolumeCache
from fmct.preprocess import COMMAND as PREPROCESS

SMALL = ["--spacing-mm", "5", "--no-head-crop"]
IN_THIS_PROCESS = ["--workers", "0"]


@pytest.fixture
def cache(tmp_path: Path) -> VolumeCache:
    return VolumeCache.create(tmp_path / "cache", IsotropicSettings(spacing_mm=2))


@pytest.fixture
def volume() -> Volume:
    affine = np.array([[2.0, 0, 0, -11], [0, 2, 0, 7.5], [0, 0, 2, 3], [0, 0, 0, 1]])
    return Volume(np.random.default_rng(0).integers(-1024, 3071, (12, 14, 16)).astype(np.int16), affine, 1.5)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three good scans (two series in one folder, one NIfTI) and one that was cut short after it was indexed."""
    scans = tmp_path / "scans"
    write_series(scans / "both", head_like(), stacked(12), names=[f"A{k}" for k in range(12)])
    write_series(scans / "both", head_like(24, seed=1), stacked(24, 4.0), names=[f"B{k}" for k in range(24)])
    nib.save(nib.Nifti1Image(head_like(seed=2).T, np.diag([-4.5, -6, 8, 1])), scans / "n.nii.gz")
    nib.save(nib.Nifti1Image(head_like(seed=3).T, np.diag([4.5, 6, 8, 1])), scans / "cut.nii.gz")
    assert index(scans) == 0
    (scans / "cut.nii.gz").write_bytes((scans / "cut.nii.gz").read_bytes()[:-800])
    return tmp_path / "m.csv"


def preprocess(manifest: Path, *arguments: str) -> int:
    where = [] if "--workers" in arguments else IN_THIS_PROCESS
    return main(PREPROCESS, [str(manifest), "--cache", str(manifest.parent / "cache"), *SMALL, *where, *arguments])


def test_what_is_written_is_read(cache: VolumeCache, volume: Volume) -> None:
    cache.write("s1", volume, {"source_slices": 12})
    assert np.array_equal(cache.read("s1"), volume.voxels)
    cache.save()
    again = VolumeCache.open(cache.folder.parent)
    assert again.folder == cache.folder
    assert again.settings == IsotropicSettings(spacing_mm=2)
    hu = again.read("s1")
    assert hu.dtype == np.int16
    assert np.array_equal(hu, volume.voxels)
    assert np.array_equal(again.affine("s1"), volume.affine)
    again.verify("s1")
    row = again.index.loc["s1"]
    assert again.shapes_zyx(["s1"]) == {(12, 14, 16)}
    assert (row["spacing_mm"], row["cropped_mm"], row["source_slices"]) == (2, 1.5, 12)
    assert len(row["checksum"]) == 64
    assert len(again) == 1
    settings = json.loads((cache.folder / "settings.json").read_text())
    assert settings["settings"]["spacing_mm"] == 2
    assert settings["meaning"]["spacing_mm"]


def test_damage_is_noticed(cache: VolumeCache, volume: Volume) -> None:
    for scan_id in ("cut", "gone", "swapped", "junk"):
        cache.write(scan_id, volume)
    path = cache.volume_path("cut")
    path.write_bytes(path.read_bytes()[:1000])
    cache.volume_path("gone").unlink()
    cache.volume_path("junk").write_bytes(b"\0" * 500)
    other = VolumeCache.create(cache.folder.parent / "other", cache.settings)
    other.write("swapped", Volume(volume.voxels + 1, volume.affine))
    cache.volume_path("swapped").write_bytes(other.volume_path("swapped").read_bytes())
    for scan_id in ("cut", "gone", "junk"):
        with pytest.raises(FmctError) as raised:
            cache.read(scan_id)
        assert raised.value.where == str(cache.volume_path(scan_id))
        assert "fmct preprocess" in raised.value.fix
    with pytest.raises(FmctError, match="checksum differs"):
        cache.verify("swapped")


def test_unknown_scans_and_unsafe_names(cache: VolumeCache, volume: Volume) -> None:
    with pytest.raises(UsageError, match=r"no scan nobody in the cache.*\n.*\n.*fmct preprocess"):
        cache.read("nobody")
    with pytest.raises(UsageError):
        cache.affine("nobody")
    for name in ("../x", "a/b", ".x", "", "x" * 300, "a b"):
        with pytest.raises(UsageError, match="can't be a file name"):
            cache.write(name, volume)


def test_opening_needs_one_cache(tmp_path: Path, cache: VolumeCache) -> None:
    with pytest.raises(UsageError, match="doesn't exist"):
        VolumeCache.open(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is no cache"):
        VolumeCache.open(tmp_path)
    second = VolumeCache.create(cache.folder.parent, IsotropicSettings(spacing_mm=3))
    with pytest.raises(UsageError) as raised:
        VolumeCache.open(cache.folder.parent)
    assert cache.folder.name in raised.value.what
    assert second.folder.name in raised.value.what
    assert VolumeCache.open(second.folder).settings.spacing_mm == 3
    text = (second.folder / "settings.json").read_text()
    (second.folder / "settings.json").write_text(text.replace('"isotropic"', '"isotopic"'))
    with pytest.raises(UsageError, match="did you mean 'isotropic'"):
        VolumeCache.open(second.folder)


def test_export_has_the_right_affine(tmp_path: Path, cache: VolumeCache, volume: Volume) -> None:
    cache.write("s1", volume)
    for name in ("s1.nii.gz", "s1.nii"):
        cache.export_nifti("s1", tmp_path / name)
        image = nib.load(tmp_path / name)
        assert np.array_equal(np.asarray(image.dataobj), volume.voxels.transpose(2, 1, 0))
        assert image.affine == pytest.approx(volume.affine)
        assert image.get_qform() == pytest.approx(volume.affine)
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)


def test_preprocess_fills_the_cache_once(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preprocess(manifest) == 3
    cache = VolumeCache.open(manifest.parent / "cache")
    frame = read_manifest(manifest).set_index("scan_id")
    cut = frame.index[frame["path"].str.contains("cut")][0]
    assert set(cache.index.index) == set(frame.index) - {cut}
    assert cache.rejected_ids() == {cut}
    listed = pd.read_csv(cache.folder / "rejects.csv")
    assert listed["code"].tolist() == ["UNREADABLE"]
    assert listed["path"].tolist() == ["scans/cut.nii.gz"]
    (manifest.parent / "scans" / "cut.nii.gz").unlink()
    scans, _ = find_scans([manifest.parent / "scans"])
    assert len(scans) == 3
    for scan in scans:
        stack = scan.load()
        grid = Grid.covering(*stack.bounds_ras_mm(), 5.0)
        expected = resample(stack, grid, hu_range=(cache.settings.hu_min, cache.settings.hu_max))
        assert np.array_equal(cache.read(scan.scan_id), expected)
        assert np.array_equal(cache.affine(scan.scan_id), grid.affine_ras)
        cache.verify(scan.scan_id)
    assert len({cache.index.loc[scan_id, "source_gap_mm"] for scan_id in cache.index.index}) == 2
    (manifest.parent / "scans" / "cut.nii.gz").write_bytes(b"\x1f\x8b\x08\0")
    files = {path: path.stat().st_mtime_ns for path in cache.folder.rglob("*.b2nd")}
    capsys.readouterr()
    assert preprocess(manifest) == 3
    out = capsys.readouterr().out
    assert "3 scans were in the cache already" in out
    assert "1 scans were rejected before" in out
    assert {path: path.stat().st_mtime_ns for path in cache.folder.rglob("*.b2nd")} == files
    assert preprocess(manifest, "--retry-rejected", "--json") == 3
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["rejected"], outcome["rejected_before"]) == ({"UNREADABLE": 1}, 0)
    next(iter(files)).unlink()
    assert preprocess(manifest, "--json") == 3
    assert json.loads(capsys.readouterr().out)["cached"] == 1
    assert preprocess(manifest, "--spacing-mm", "6") == 3
    assert len(list((manifest.parent / "cache").glob("isotropic-*"))) == 2


def test_several_processes_make_the_same_cache(manifest: Path) -> None:
    assert preprocess(manifest) == 3
    elsewhere = manifest.parent / "parallel"
    assert main(PREPROCESS, [str(manifest), "--cache", str(elsewhere), *SMALL, "--workers", "2"]) == 3
    one, two = VolumeCache.open(manifest.parent / "cache"), VolumeCache.open(elsewhere)
    pd.testing.assert_frame_equal(one.index, two.index)
    assert one.rejected_ids() == two.rejected_ids()
    for scan_id in one.index.index:
        assert np.array_equal(one.read(scan_id), two.read(scan_id))


def test_failing_scans_do_not_stop_the_others(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans = manifest.parent / "scans"
    broken = scans / "both" / "A3"
    broken.write_bytes(broken.read_bytes()[:-1500])
    (scans / "n.nii.gz").write_bytes((scans / "n.nii.gz").read_bytes()[:-800])
    assert preprocess(manifest) == 3
    listed = pd.read_csv(VolumeCache.open(manifest.parent / "cache").folder / "rejects.csv")
    # the series with a damaged slice lacks one of those it was indexed with
    assert sorted(listed["code"]) == ["MISSING", "UNREADABLE", "UNREADABLE"]
    assert len(VolumeCache.open(manifest.parent / "cache")) == 1
    capsys.readouterr()
    (scans / "cut.nii.gz").rename(scans / "away.nii.gz")
    frame = read_manifest(manifest)
    write_manifest(frame[frame["path"].str.contains("cut|both")], manifest.parent / "some.csv")
    arguments = [str(manifest.parent / "some.csv"), "--cache", str(manifest.parent / "cache"), "--spacing-mm", "7"]
    assert main(PREPROCESS, [*arguments, "--no-head-crop", "--json", *IN_THIS_PROCESS]) == 3
    assert json.loads(capsys.readouterr().out)["rejected"]["MISSING"] == 2
    (scans / "away.nii.gz").rename(scans / "cut.nii.gz")
    # what was missing is looked for again
    assert main(PREPROCESS, [*arguments, "--no-head-crop", "--json", *IN_THIS_PROCESS]) == 3
    assert json.loads(capsys.readouterr().out)["rejected"] == {"MISSING": 1, "UNREADABLE": 1}


def test_a_run_that_is_cut_off_goes_on(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fmct.data import cache_building

    made = []

    make = cache_building.make_volume

    def twice(*arguments: Any, **more: Any) -> Volume:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(arguments)
        return make(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(cache_building, "make_volume", twice)
        assert preprocess(manifest) == 75
    done = VolumeCache.open(manifest.parent / "cache")
    assert 1 <= len(done) <= 2
    assert preprocess(manifest) == 3
    assert len(VolumeCache.open(manifest.parent / "cache")) == 3
    assert not list(done.folder.rglob(".*.b2nd"))


def test_rows_are_matched_by_series_or_by_being_alone(tmp_path: Path) -> None:
    write_series(tmp_path / "scans" / "a", head_like(), stacked(12), SeriesInstanceUID="1.2.34")
    rows = pd.DataFrame(
        {
            "scan_id": ["mine", "wrong"],
            "path": "scans/a",
            "format": "dicom",
            "patient_id": "p",
            "series_id": ["", "feed"],
            "skipped_rules": "NOT_A_HEAD IMPLAUSIBLE_HU",
        }
    )
    write_manifest(rows, tmp_path / "m.csv")
    assert preprocess(tmp_path / "m.csv") == 3
    cache = VolumeCache.open(tmp_path / "cache")
    assert list(cache.index.index) == ["mine"]
    assert cache.rejected_ids(without=RejectCode.MISSING) == set()
    assert cache.rejected_ids() == {"wrong"}


def test_usage_errors(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preprocess(manifest, "--root", str(tmp_path / "scans" / "both")) == 2
    assert "--root" in capsys.readouterr().err
    assert preprocess(manifest, "--shape-voxels", "96") == 2
    assert "exclude each other" in capsys.readouterr().err
    assert preprocess(tmp_path / "no.csv") == 2
    assert preprocess(manifest, "--spacing-mm", "0") == 2
    frame = read_manifest(manifest)
    frame.loc[0, "scan_id"] = "a/b"
    write_manifest(frame, tmp_path / "bad.csv")
    assert preprocess(tmp_path / "bad.csv") == 2
    assert "can't be a file name" in capsys.readouterr().err
