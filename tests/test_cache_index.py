"""The index of a cache: written by several processes, cut off at any time, sent to loaders, and never wrong."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from index_run import index
from synthetic_series import head_like, stacked, write_series

from fmct.console.command import main
from fmct.console.errors import FmctError, UsageError
from fmct.console.lock_file import LockedError, held
from fmct.data import cache_building, cache_index
from fmct.data.manifest import read_manifest, write_manifest
from fmct.data.presets import IsotropicSettings
from fmct.data.rejection import RejectCode
from fmct.data.volumes import Volume, VolumeCache
from fmct.preprocess import COMMAND as PREPROCESS

SMALL = ["--spacing-mm", "5", "--no-head-crop", "--workers", "0"]
VOLUME = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([2.0, 2, 2, 1]))


@pytest.fixture
def cache(tmp_path: Path) -> VolumeCache:
    return VolumeCache.create(tmp_path, IsotropicSettings(spacing_mm=2))


def same_cache(cache: VolumeCache) -> VolumeCache:
    """Return it as another process opens it."""
    return VolumeCache.open(cache.folder)


def test_several_writers_lose_nothing(cache: VolumeCache) -> None:
    writers = [same_cache(cache) for _ in range(3)]
    for number, writer in enumerate(writers):
        writer.write(f"s{number}", VOLUME, {"source_slices": number})
        writer.reject(f"r{number}", f"path{number}", RejectCode.GAP, "a gap")
        writer.save_additions()
    assert set(same_cache(cache).index.index) == {"s0", "s1", "s2"}  # before any of them has ended
    assert not (cache.folder / "index.parquet").exists()
    writers[1].save()
    writers[0].write("s3", VOLUME)
    writers[0].save_additions()
    writers[2].save()
    writers[0].save()
    done = same_cache(cache)
    assert list(done.index.index) == ["s0", "s1", "s2", "s3"]
    assert done.rejected_ids() == {"r0", "r1", "r2"}
    assert done.index["source_slices"].tolist()[:3] == [0, 1, 2]
    pd.testing.assert_frame_equal(done.index, writers[0].index)
    assert sorted(path.name for path in cache.folder.iterdir()) == [
        "index.parquet", "rejects.csv", "settings.json", "volumes",
    ]  # fmt: skip


def test_a_scan_is_either_cached_or_rejected(cache: VolumeCache) -> None:
    cache.reject("s", "p", RejectCode.FAILED, "once")
    cache.write("gone", VOLUME)
    cache.save()
    again = same_cache(cache)
    again.write("s", VOLUME)
    again.volume_path("gone").unlink()
    again.reject("gone", "p", RejectCode.UNREADABLE, "by now")
    again.save()
    for one in (again, same_cache(cache)):
        assert list(one.index.index) == ["s"]
        assert one.rejected_ids() == {"gone"}
    again.forget(["s", "gone"])
    assert (len(same_cache(cache)), same_cache(cache).rejected_ids()) == (0, set())
    assert again.volume_path("s").exists()


def test_a_part_that_is_written_while_others_merge_stays(cache: VolumeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    running = same_cache(cache)
    running.write("first", VOLUME)
    running.save_additions()
    merging = same_cache(cache)
    write = cache_index.write_rows

    def meanwhile(rows: pd.DataFrame, path: Path) -> None:
        write(rows, path)
        if path.name == "index.parquet" and "second" not in running:
            running.write("second", VOLUME)
            running.save_additions()

    monkeypatch.setattr(cache_index, "write_rows", meanwhile)
    merging.save()
    assert set(same_cache(cache).index.index) == {"first", "second"}


def test_a_cache_goes_to_other_processes_as_its_folder_alone(cache: VolumeCache) -> None:
    for number in range(200):
        cache.write(f"s{number:03d}", VOLUME)
    cache.save()
    sent = pickle.dumps(cache)
    assert len(sent) < 2000
    arrived = pickle.loads(sent)
    (cache.folder / "index.parquet").rename(cache.folder / "away")
    assert np.array_equal(arrived.read("s007"), VOLUME.voxels)  # a loader never reads the index
    (cache.folder / "away").rename(cache.folder / "index.parquet")
    with pytest.raises(UsageError, match="there is no scan nobody"):
        arrived.read("nobody")
    pd.testing.assert_frame_equal(arrived.index, cache.index)
    assert arrived.shapes_zyx(["s000", "s100"]) == {(3, 4, 5)}


def test_the_index_tells_axes_apart(cache: VolumeCache) -> None:
    affine = np.array([[1.5, 0, 0, 3], [0, 2, 0, 4], [0, 0, 2.5, 5], [0, 0, 0, 1]])
    cache.write("windows", Volume(np.zeros((3, 4, 5, 6), np.float16), affine))
    cache.write("hu", VOLUME)
    cache.save()
    rows = same_cache(cache).index
    assert rows.loc["windows", ["spacing_x_mm", "spacing_y_mm", "spacing_z_mm"]].tolist() == [1.5, 2, 2.5]
    assert rows.loc["windows", ["channels", "shape_z", "shape_y", "shape_x"]].tolist() == [3, 4, 5, 6]
    assert np.isnan(rows.loc["windows", "spacing_mm"])
    assert rows.loc["hu", "spacing_mm"] == 2
    assert np.array_equal(same_cache(cache).affine("windows"), affine)
    assert rows.loc["hu", "bytes"] == cache.volume_path("hu").stat().st_size


def test_many_scans_are_looked_up_at_once(cache: VolumeCache) -> None:
    for name in ("there", "lost"):
        cache.write(name, VOLUME)
    cache.store("unlisted", VOLUME)
    cache.volume_path("lost").unlink()
    names = pd.Series(["there", "lost", "unlisted", "nowhere"], index=[7, 5, 3, 1])
    assert cache.has_volumes(names).to_dict() == {7: True, 5: False, 3: False, 1: False}
    assert cache.has_volumes(pd.Series(names)).tolist() == [True, False, False, False]
    with pytest.raises(UsageError, match="can't be a file name"):
        cache.has_volumes(pd.Series(["there", "a/b"]))


def test_broken_and_foreign_indexes_are_named(cache: VolumeCache) -> None:
    path = cache.folder / "index.parquet"
    pd.DataFrame({"checksum": ["x"], "affine": [[1.0] * 16]}, index=pd.Index(["s"], name="scan_id")).to_parquet(path)
    with pytest.raises(UsageError, match=r"index\.parquet lacks bytes and .* another version wrote it"):
        same_cache(cache)
    path.write_bytes(b"PAR1junk")
    with pytest.raises(UsageError, match=r"can't be read \(index\.parquet: "):
        same_cache(cache)


def test_the_lock_names_its_holder_and_outlives_no_process(tmp_path: Path) -> None:
    path = tmp_path / "index.lock"
    with held(path), pytest.raises(LockedError, match=f"process {os.getpid()} on ") as raised, held(path, 0.2):
        pass
    assert str(path) in str(raised.value)
    assert "delete this file" in raised.value.fix
    assert not path.exists()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": gone.pid, "since": "long ago"}))
    with held(path, 0.2):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    path.write_text(json.dumps({"host": "elsewhere", "pid": gone.pid, "since": "long ago"}))
    with pytest.raises(LockedError, match=r"on elsewhere .*since long ago"), held(path, 0.2):
        pass
    assert list(tmp_path.iterdir()) == [path]


def test_a_held_lock_keeps_nothing_from_being_read(cache: VolumeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmct.console.lock_file.PATIENCE_S", 0.2)
    (cache.folder / "index.lock").write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": "now"}))
    cache.write("s", VOLUME)
    with pytest.raises(LockedError):
        cache.save()
    assert list(same_cache(cache).index.index) == ["s"]
    (cache.folder / "index.lock").unlink()
    same_cache(cache).save()
    assert list(pd.read_parquet(cache.folder / "index.parquet").index) == ["s"]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Six scans."""
    for number in range(6):
        write_series(tmp_path / "scans" / str(number), head_like(seed=number), stacked(12), PatientID=f"P{number}")
    assert index(tmp_path / "scans") == 0
    return tmp_path / "m.csv"


KILLED = """
import os, signal, sys
from fmct.console.command import main
from fmct.data import cache_building
from fmct.preprocess import COMMAND
make, made = cache_building.make_volume, []
def few(*arguments):
    if len(made) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    made.append(1)
    return make(*arguments)
cache_building.make_volume = few
main(COMMAND, sys.argv[1:])
"""


def started(program: list[str], manifest: Path, cache: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, *program, str(manifest), "--cache", str(cache), *SMALL]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_two_runs_at_once_end_with_all_scans(manifest: Path) -> None:
    frame = read_manifest(manifest)
    parts = [manifest.parent / "a.csv", manifest.parent / "b.csv"]
    for number, part in enumerate(parts):
        write_manifest(frame.iloc[number::2], part)
    together, alone = manifest.parent / "together", manifest.parent / "alone"
    runs = [started(["-m", "fmct.preprocess"], part, together) for part in parts]
    assert [run.wait() for run in runs] == [0, 0]
    assert main(PREPROCESS, [str(manifest), "--cache", str(alone), *SMALL]) == 0
    pd.testing.assert_frame_equal(VolumeCache.open(together).index, VolumeCache.open(alone).index)
    assert not list(together.glob("*/index-*"))


def test_what_a_killed_run_wrote_is_taken_in(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = manifest.parent / "cache"
    assert started(["-c", KILLED], manifest, folder).wait() == -signal.SIGKILL
    files = {path: path.stat().st_ino for path in folder.rglob("[!.]*.b2nd")}
    assert len(files) == 3
    assert len(VolumeCache.open(folder)) == 0
    broken = next(iter(files))
    broken.write_bytes(broken.read_bytes()[:-1])
    made = []
    make = cache_building.make_volume
    monkeypatch.setattr(cache_building, "make_volume", lambda *all_: made.append(all_) or make(*all_))
    assert main(PREPROCESS, [str(manifest), "--cache", str(folder), *SMALL]) == 0
    assert len(made) == 4
    done = VolumeCache.open(folder)
    assert len(done) == 6
    assert [path.stat().st_ino == inode for path, inode in files.items() if path != broken] == [True, True]
    for scan_id in done.index.index:
        done.verify(scan_id)
    alone = manifest.parent / "alone"
    assert main(PREPROCESS, [str(manifest), "--cache", str(alone), *SMALL]) == 0
    pd.testing.assert_frame_equal(done.index, VolumeCache.open(alone).index)


def test_only_a_volume_of_the_same_scan_and_settings_is_taken_in(cache: VolumeCache, tmp_path: Path) -> None:
    row = cache.store("s", VOLUME, {"source_slices": 12})
    assert cache.adopted("s") == row
    assert cache.adopted("nobody") is None
    other = VolumeCache.create(tmp_path, IsotropicSettings(spacing_mm=3))
    other.volume_path("s").parent.mkdir(parents=True)
    other.volume_path("s").write_bytes(cache.volume_path("s").read_bytes())
    assert other.adopted("s") is None
    other.record("s", row)
    with pytest.raises(FmctError, match="made with other settings"):
        other.verify("s")
