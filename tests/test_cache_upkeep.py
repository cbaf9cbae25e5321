"""Looking after a cache: `fmct cache ls|rm|export`, `fmct preprocess --verify`, and a disk that is full."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import make_cohort
from index_run import index
from synthetic_series import head_like, stacked, write_series

from fmct.cache import COMMAND as CACHE
from fmct.console.command import main
from fmct.console.disk_space import in_units, writing_into
from fmct.console.errors import FmctError
from fmct.data.cache_verification import Verification
from fmct.data.presets import IsotropicSettings
from fmct.data.rejection import RejectCode
from fmct.data.volumes import Volume, VolumeCache
from fmct.preprocess import COMMAND as PREPROCESS

SMALL = ["--spacing-mm", "5", "--no-head-crop"]


@pytest.fixture
def cache(tmp_path: Path) -> VolumeCache:
    """Eight scans, one reject, and one of each kind of leftover, two hours old."""
    cache = VolumeCache.open(make_cohort(tmp_path, scans=8, side=8).cache)
    cache.reject("refused", "p", RejectCode.GAP, "a gap")
    cache.write("lost", cache_volume())
    cache.save()
    cache.volume_path("lost").unlink()
    cache.store("unlisted", cache_volume())
    temporary = cache.volume_path("scan000").with_name(".scan000.01abcdef.b2nd")
    temporary.write_bytes(b"half")
    for path in (temporary, cache.volume_path("unlisted")):
        os.utime(path, (0, path.stat().st_mtime - 7200))
    return cache


def cache_volume(seed: int = 0) -> Volume:
    voxels = np.random.default_rng(seed).integers(-1024, 3071, (8, 8, 8)).astype(np.int16)
    return Volume(voxels, np.array([[9.0, 0, 0, 4], [0, 9, 0, 5], [0, 0, 9, 6], [0, 0, 0, 1]]))


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    status = main(CACHE, [str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_ls_tells_what_there_is(cache: VolumeCache, capsys: pytest.CaptureFixture[str]) -> None:
    other = VolumeCache.create(cache.folder.parent, IsotropicSettings(spacing_mm=3))
    status, text = run(capsys, "ls", cache.folder.parent)
    assert status == 0
    for part in (
        cache.folder, other.folder, "spacing_mm 9.0", "head_crop yes", "8 x 8 x 8 (9)", "GAP (1)",
        "1 temporary files, 4 bytes", "1 volumes not in the index", "1 rows without a volume",
    ):  # fmt: skip
        assert str(part) in text
    status, text = run(capsys, "ls", cache.folder, "--json")
    (found,) = json.loads(text)
    assert found["volumes"] == 8
    assert found["bytes"] == sum(cache.volume_path(f"scan{n:03d}").stat().st_size for n in range(8))
    assert found["settings"]["spacing_mm"] == 9
    assert (found["rejected"], found["lost_volumes"], found["unlisted_volumes"]) == ({"GAP": 1}, ["lost"], ["unlisted"])
    assert found["first_written"] <= found["last_written"]
    assert run(capsys, "ls", cache.folder / "volumes")[0] == 2


def test_rm_asks_and_removes_what_was_named(
    cache: VolumeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(cache.folder)
    status, text = run(capsys, "rm", cache.folder, "--scan-ids", "scan001,scan002")
    assert status == 2
    assert "add --yes" in text
    for answer in ("n\n", "\n", ""):
        monkeypatch.setattr("sys.stdin", terminal := io.StringIO(answer))
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        status, text = run(capsys, "rm", cache.folder, "--scan-ids", "scan001")
        assert status == 0
        assert text.endswith("[y/N] nothing was removed\n")
    assert files_of(cache.folder) == before
    gone = {cache.volume_path(name) for name in ("scan001", "scan002")}
    size = sum(path.stat().st_size for path in gone)
    status, text = run(capsys, "rm", cache.folder, "--scan-ids", "scan001, scan002", "--yes")
    assert status == 0
    assert f"removed 2 files and 2 rows of the index from {cache.folder}: {in_units(size)} are free again" in text
    assert files_of(cache.folder) == before - gone
    assert set(VolumeCache.open(cache.folder).index.index) == {"lost", *(f"scan{n:03d}" for n in (0, 3, 4, 5, 6, 7))}
    frame = pd.read_csv(tmp_path / "manifest.csv").iloc[2:5]
    frame.to_csv(tmp_path / "some.csv", index=False)
    monkeypatch.setattr("sys.stdin", terminal := io.StringIO("y\n"))
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    status, text = run(capsys, "rm", cache.folder, "--manifest", tmp_path / "some.csv")
    assert status == 0
    assert "1 of the manifest's 3 scans aren't in the cache" in text
    assert not any(cache.volume_path(name).exists() for name in ("scan003", "scan004"))
    assert run(capsys, "rm", cache.folder, "--scan-ids", "nobody", "--yes")[0] == 2


def test_leftovers_go_once_they_are_old(cache: VolumeCache, capsys: pytest.CaptureFixture[str]) -> None:
    young = cache.volume_path("scan001").with_name(".scan001.01abcdef.b2nd")
    young.write_bytes(b"being written")
    status, text = run(capsys, "rm", cache.folder, "--leftovers", "--yes")
    assert status == 0
    assert "1 leftovers are younger than an hour and stay" in text
    assert "removed 2 files and 1 rows" in text
    assert young.exists()
    assert not cache.volume_path("unlisted").exists()
    left = VolumeCache.open(cache.folder)
    assert len(left) == 8
    assert left.has_volumes(left.index.index.to_series()).all()
    assert "nothing to remove" in run(capsys, "rm", cache.folder, "--leftovers")[1]


def test_everything_is_only_what_is_the_caches(
    cache: VolumeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    (outside / "ab").mkdir(parents=True)
    for path in (outside / "a.b2nd", outside / "ab" / "b.b2nd"):
        path.write_bytes(b"somebody's")
    places = [cache.folder / "volumes" / f"{number:02x}" for number in range(256)]
    next(place for place in places if not place.exists()).symlink_to(outside / "ab")
    link = cache.volume_path("scan000").with_name("link.b2nd")
    link.symlink_to(outside / "a.b2nd")
    (cache.folder / "notes.txt").write_text("mine")
    status, text = run(capsys, "rm", cache.folder, "--everything", "--yes")
    assert status == 0
    assert "aren't the cache's and stay" in text
    assert (outside / "a.b2nd").read_bytes() == (outside / "ab" / "b.b2nd").read_bytes() == b"somebody's"
    assert (cache.folder / "notes.txt").exists()
    assert not cache.volume_path("scan001").exists()
    assert not (cache.folder / "settings.json").exists()
    whole = VolumeCache.create(tmp_path / "second", IsotropicSettings(spacing_mm=2))
    whole.write("s", cache_volume())
    whole.save()
    assert run(capsys, "rm", whole.folder, "--everything", "--yes")[0] == 0
    assert not whole.folder.exists()


def test_a_cache_whose_folders_are_links_is_not_followed(
    cache: VolumeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (cache.folder / "volumes").rename(tmp_path / "elsewhere")
    (cache.folder / "volumes").symlink_to(tmp_path / "elsewhere")
    there = files_of(tmp_path / "elsewhere")
    for chosen in (["--scan-ids", "scan001"], ["--everything"], ["--leftovers"]):
        status, text = run(capsys, "rm", cache.folder, *chosen, "--yes")
        assert status == 2
        assert "is a link" in text
    assert len(VolumeCache.open(cache.folder)) == 9
    assert files_of(tmp_path / "elsewhere") == there


def test_export_writes_true_files(cache: VolumeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "nifti"
    status, text = run(capsys, "export", cache.folder, "--scan-ids", "scan003", "--out", out)
    assert (status, [path.name for path in out.iterdir()]) == (0, ["scan003.nii.gz"])
    image = nib.load(out / "scan003.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert np.array_equal(np.asarray(image.dataobj), cache.read("scan003").transpose(2, 1, 0))
    assert np.array_equal(image.affine, cache.affine("scan003"))
    status, text = run(capsys, "export", cache.folder, "--manifest", tmp_path / "manifest.csv", "--out", out)
    assert status == 2
    assert "--overwrite" in text
    assert len(list(out.iterdir())) == 1
    status, text = run(capsys, "export", cache.folder, "--out", out, "--overwrite")
    assert status == 3  # one row has no volume
    assert "8 volumes ->" in text
    assert "the cached volume is missing" in text
    windows = VolumeCache.create(tmp_path / "w", IsotropicSettings())
    voxels = np.random.default_rng(0).random((3, 4, 5, 6)).astype(np.float16)
    affine = np.array([[1.5, 0, 0, 3], [0, 2, 0, 4], [0, 0, 2.5, 5], [0, 0, 0, 1]])
    windows.write("w", Volume(voxels, affine))
    windows.save()
    assert run(capsys, "export", windows.folder, "--out", out)[0] == 0
    image = nib.load(out / "w.nii.gz")
    assert image.shape == (6, 5, 4, 3)
    assert np.array_equal(image.dataobj[3, 2, 1], voxels[:, 1, 2, 3].astype(np.float32))
    assert np.array_equal(image.affine, affine)


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (["ls", "--yes"], "it is a flag of rm"),
        (["ls", "--out", "x"], "it is a flag of export"),
        (["ls", "--manifest", "m.csv"], "it is a flag of rm and export"),
        (["export", "--json", "--out", "x"], "it is a flag of ls"),
        (["rm", "--yes"], "give one of"),
        (["rm", "--leftovers", "--everything"], "give one of"),
        (["export"], "add --out DIR"),
        (["export", "--out", "x", "--scan-ids", "a", "--manifest", "m.csv"], "leave one of them out"),
    ],
)
def test_flags_that_do_not_fit(
    cache: VolumeCache, arguments: list[str], fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = run(capsys, arguments[0], cache.folder, *arguments[1:])
    assert status == 2
    assert fix in text


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Four scans in a cache."""
    for number in range(4):
        write_series(tmp_path / "scans" / str(number), head_like(seed=number), stacked(12), PatientID=f"P{number}")
    assert index(tmp_path / "scans") == 0
    return tmp_path / "m.csv"


def preprocess(manifest: Path, *arguments: str) -> int:
    where = [] if "--workers" in arguments else ["--workers", "0"]
    return main(PREPROCESS, [str(manifest), "--cache", str(manifest.parent / "cache"), *SMALL, *where, *arguments])


def test_verify_finds_what_is_bad_and_the_next_run_mends_it(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preprocess(manifest) == 0
    assert preprocess(manifest, "--verify") == 0
    cache = VolumeCache.open(manifest.parent / "cache")
    job = pickle.loads(pickle.dumps(Verification(cache, [("nobody", ""), *cache.index["checksum"].items()])))
    assert [verdict.problem != "" for piece in job.singly() for verdict in piece.run()] == [True] + [False] * 4
    flipped, swapped, gone, good = sorted(map(str, cache.index.index))
    before = {scan_id: cache.read(scan_id) for scan_id in cache.index.index}
    content = bytearray(cache.volume_path(flipped).read_bytes())
    content[len(content) // 2] ^= 1
    cache.volume_path(flipped).write_bytes(content)
    cache.store(swapped, cache_volume())
    cache.volume_path(gone).unlink()
    files = files_of(cache.folder / "volumes")
    capsys.readouterr()
    assert preprocess(manifest, "--verify", "--json") == 3
    found = json.loads(capsys.readouterr().out)
    assert found["good"] == 1
    problems = {one["scan_id"]: one["problem"] for one in found["damaged"]}
    assert set(problems) == {flipped, swapped, gone}
    assert "its bytes aren't those" in problems[flipped]
    assert "isn't the one that the index lists" in problems[swapped]
    assert "is missing" in problems[gone]
    assert files_of(cache.folder / "volumes") == files
    assert list(VolumeCache.open(cache.folder).index.index) == [good]
    assert preprocess(manifest, "--verify") == 3
    text = capsys.readouterr().out
    assert "3 not preprocessed yet" in text
    assert "the same command without --verify makes what lacks" in text
    cache.volume_path(swapped).unlink()  # good in itself, so it would be taken in
    assert preprocess(manifest) == 0
    assert preprocess(manifest, "--verify") == 0
    mended = VolumeCache.open(cache.folder)
    assert all(np.array_equal(mended.read(scan_id), hu) for scan_id, hu in before.items())


def test_a_full_disk_ends_a_run_cleanly(
    manifest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes
    written = []

    def limited(path: Path, content: bytes) -> int:
        if path.suffix == ".b2nd":
            if len(written) == 2:
                write(path, content[:100])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written.append(path)
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", limited)
        assert preprocess(manifest) == 1
    lines = capsys.readouterr().err.strip().splitlines()[-3:]
    cache = VolumeCache.open(manifest.parent / "cache")
    assert lines[0] == "error: the disk is full (No space left on device)"
    assert lines[1] == f"  in {cache.folder}"
    needed = in_units(2 * cache.index["bytes"].mean())
    assert lines[2].startswith(f"  Fix: free some space, about {needed} more (")
    assert len(cache) == 2
    assert not [path for path in files_of(cache.folder) if path.name.startswith(".")]
    capsys.readouterr()
    assert preprocess(manifest, "--json") == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["cached"], outcome["cached_before"]) == (2, 2)


@pytest.mark.slow
def test_a_worker_on_a_full_disk_ends_the_run(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() == 0:  # rights don't hold root back, but a file in the way does
        cache = VolumeCache.create(manifest.parent / "cache", IsotropicSettings(spacing_mm=5, head_crop=False))
        (cache.folder / "volumes").write_text("in the way")
    else:
        (manifest.parent / "cache").mkdir(mode=0o555)
    assert preprocess(manifest, "--workers", "2") == 1
    lines = capsys.readouterr().err.strip().splitlines()[-3:]
    assert lines[0].startswith("error: ")
    assert "can't be written" in lines[0]
    assert "then run it again: it goes on with the scans that lack" in lines[2]


def test_errors_from_elsewhere_are_not_blamed_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="elsewhere"), writing_into(tmp_path / "cache", lambda: 0, "again"):
        raise OSError(errno.ENOSPC, "elsewhere", "/other/file")
    with pytest.raises(OSError, match="nowhere"), writing_into(tmp_path, lambda: 0, "again"):
        raise OSError(errno.ENOSPC, "nowhere")
    with (
        pytest.raises(FmctError, match=r"free some space \(") as raised,
        writing_into(tmp_path / "c", lambda: 0, "again"),
    ):
        raise OSError(errno.EDQUOT, "over quota", str(tmp_path / "c" / "f"))
    assert raised.value.what == "the disk is full (over quota)"
    assert [in_units(size) for size in (0, 999, 1000, 54_321_000, 3e9, 2.4e12)] == [
        "0 bytes", "999 bytes", "1 KB", "54.3 MB", "3 GB", "2.4 TB",
    ]  # fmt: skip
