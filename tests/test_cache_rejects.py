"""What rejects.csv of a cache says of scans that broke after they were indexed, in one folder of many scans too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from index_run import index
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless
from synthetic_series import head_like, stacked, write_series

from fmct.cli import main as run
from fmct.console.command import main
from fmct.data import archive, batching, cache_building
from fmct.data.volumes import VolumeCache
from fmct.preprocess import COMMAND as PREPROCESS

SMALL = ["--spacing-mm", "5", "--no-head-crop", "--workers", "0"]


def preprocess(folder: Path, *arguments: str) -> VolumeCache:
    assert main(PREPROCESS, [str(folder / "m.csv"), "--cache", str(folder / "cache"), *SMALL, *arguments]) in {0, 3}
    return VolumeCache.open(folder / "cache")


def details(cache: VolumeCache) -> list[tuple[str, str]]:
    rows = pd.read_csv(cache.folder / "rejects.csv")
    return list(zip(rows["code"], rows["detail"], strict=True))


def test_a_slice_that_does_not_decode_is_named(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in", head_like(), stacked(12))
    for path in paths:
        dataset = dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    assert index(tmp_path / "in") == 0
    dataset = dcmread(paths[4])
    dataset.PixelData = encapsulate([b"\1" * 900])  # what the header says of it stays right
    dataset.save_as(paths[4])
    ((code, detail),) = details(preprocess(tmp_path))
    assert code == "UNREADABLE"
    assert detail.startswith("004.dcm: ")


def test_an_unexpected_error_tells_its_place_and_not_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "in", head_like(), stacked(12))
    assert index(tmp_path / "in") == 0

    def broken(*_: object) -> None:
        raise ValueError("DOE^JOHN")

    monkeypatch.setattr(cache_building, "make_volume", broken)
    ((code, detail),) = details(preprocess(tmp_path))
    assert code == "FAILED"
    assert detail.startswith("ValueError in test_cache_rejects.py, line ")
    assert "DOE" not in detail


def test_a_folder_of_many_scans_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = [head_like(seed=seed) for seed in range(7)]
    for seed, hu in enumerate(volumes):
        names = [f"{seed}_{k}" for k in range(12)]
        write_series(tmp_path / "in", hu, stacked(12), names=names, PatientID=f"P{seed}")
    assert index(tmp_path / "in") == 0
    read = archive.look_at
    reads = []

    def counted(path: Path, key: bytes, pixels: bool = False) -> object:
        reads.append(path)
        return read(path, key, pixels)

    monkeypatch.setattr(batching, "LARGEST_BATCH_OF_ONE_FOLDER", 3)
    monkeypatch.setattr(batching, "LARGEST_BATCH", 2)
    monkeypatch.setattr(archive, "look_at", counted)
    cache = preprocess(tmp_path)
    assert len(cache) == 7
    assert len(reads) == len(set(reads)) == 7 * 12
    assert cache.index["checksum"].nunique() == 7


def test_a_scout_stays_out_and_a_lost_slice_is_noticed(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in", head_like(13), stacked(13))
    scout = dcmread(paths[0])
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.save_as(paths[0])
    assert index(tmp_path / "in") == 3
    cache = preprocess(tmp_path)
    assert len(cache) == 1
    assert cache.index["source_slices"].tolist() == [12]
    paths[-1].unlink()
    again = VolumeCache.create(tmp_path / "other", cache.settings)
    assert main(PREPROCESS, [str(tmp_path / "m.csv"), "--cache", str(tmp_path / "other"), *SMALL]) == 3
    ((code, detail),) = details(again)
    assert code == "MISSING"
    assert detail == "11 slices on disk, 12 in the manifest: run `fmct index` again"


def test_a_scan_that_has_gone_from_a_folder_of_many_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(5):
        names = [f"{seed}_{k}" for k in range(12)]
        write_series(tmp_path / "in", head_like(seed=seed), stacked(12), names=names, PatientID=f"P{seed}")
    assert index(tmp_path / "in") == 0
    for path in (tmp_path / "in").glob("3_*"):
        path.unlink()
    monkeypatch.setattr(batching, "LARGEST_BATCH_OF_ONE_FOLDER", 3)
    monkeypatch.setattr(batching, "LARGEST_BATCH", 2)
    cache = preprocess(tmp_path)
    assert len(cache) == 4
    assert [code for code, _ in details(cache)] == ["MISSING"]


def test_scans_that_were_renamed_are_known_by_their_series_in_a_folder_of_many_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(5):
        names = [f"{seed}_{k}" for k in range(12)]
        write_series(tmp_path / "in", head_like(seed=seed), stacked(12), names=names, PatientID=f"P{seed}")
    assert index(tmp_path / "in") == 0
    rows = pd.read_csv(tmp_path / "m.csv", dtype=str, keep_default_na=False)
    rows["scan_id"] = [f"mine_{number}" for number in range(5)]
    rows.to_csv(tmp_path / "m.csv", index=False)
    expected = preprocess(tmp_path).index["checksum"]
    monkeypatch.setattr(batching, "LARGEST_BATCH_OF_ONE_FOLDER", 3)
    monkeypatch.setattr(batching, "LARGEST_BATCH", 2)
    assert main(PREPROCESS, [str(tmp_path / "m.csv"), "--cache", str(tmp_path / "other"), *SMALL]) == 0
    assert VolumeCache.open(tmp_path / "other").index["checksum"].to_dict() == expected.to_dict()
    assert expected.nunique() == 5


def test_a_root_that_goes_away_ends_the_run_instead_of_rejecting_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        write_series(tmp_path / "in" / f"{seed}", head_like(seed=seed), stacked(12), PatientID=f"P{seed}")
    assert index(tmp_path / "in", "--root", str(tmp_path / "in")) == 0
    make = cache_building.make_volume

    def gone(*arguments: Any) -> Any:
        if (tmp_path / "in").exists():
            (tmp_path / "in").rename(tmp_path / "away")
        return make(*arguments)

    line = ["preprocess", str(tmp_path / "m.csv"), "--root", str(tmp_path / "in"), "--cache", str(tmp_path / "cache")]
    monkeypatch.setattr(cache_building, "make_volume", gone)
    assert run([*line, *SMALL]) == 1
    assert "the folder isn't to be seen on" in capsys.readouterr().err
    (cache,) = (tmp_path / "cache").iterdir()
    assert len(VolumeCache.open(cache)) == 1
    assert VolumeCache.open(cache).rejected_ids() == set()
    (tmp_path / "away").rename(tmp_path / "in")
    monkeypatch.undo()
    assert run([*line, *SMALL]) == 0
