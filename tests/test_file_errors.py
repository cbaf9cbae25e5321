"""Files that can't be read or written: three lines for every command, and nothing left behind that blocks the next."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import make_cohort
from index_run import index
from synthetic_series import head_like, stacked, write_series

from fmct.cache import COMMAND as CACHE
from fmct.console.command import exit_code, main
from fmct.console.errors import ExitCode
from fmct.console.lock_file import LockedError, held
from fmct.data.presets import IsotropicSettings
from fmct.data.volumes import VolumeCache
from fmct.preprocess import COMMAND as PREPROCESS


def raising(error: Exception) -> Callable[[], ExitCode]:
    def work() -> ExitCode:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "a/b"),
            [
                "error: a file or folder can't be read or written (Permission denied)",
                "  in a/b",
                "  Fix: change the rights there, or name another place, and run the command again",
            ],
        ),
        (
            OSError(errno.ENOSPC, "[Errno 28] Error writing bytes\nDetail: ..."),  # pyarrow names no file
            [
                "error: the disk is full ([Errno 28] Error writing bytes)",
                "  in one of the files that are written",
                "  Fix: free some space, and run the command again",
            ],
        ),
    ],
)
def test_what_the_system_says_is_three_lines(
    error: Exception, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(raising(error), debug=False) == 1
    assert capsys.readouterr().err.splitlines() == lines
    assert exit_code(raising(error), debug=True) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "no file named"), FileNotFoundError(errno.ENOENT, "gone", "x"), ValueError("bug")]
)
def test_what_may_be_a_mistake_of_our_own_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        exit_code(raising(error), debug=False)


def test_folders_in_which_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort = make_cohort(tmp_path / "cohort", scans=2, side=8)
    (tmp_path / "file").write_text("in the way")
    assert main(CACHE, ["export", str(cohort.cache), "--out", str(tmp_path / "file" / "nifti")]) == 1
    said = capsys.readouterr().err.splitlines()[-3:]
    assert said[1] == f"  in {tmp_path / 'file' / 'nifti'}"
    assert "a file where a folder should be" in said[2]
    assert main(PREPROCESS, [str(cohort.manifest), "--cache", str(tmp_path / "file")]) == 2
    assert "the cache is a folder, and this is a file" in capsys.readouterr().err


@pytest.mark.parametrize("named", ["relative", "through a link"])
def test_a_full_disk_is_told_however_the_cache_was_named(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(tmp_path / "scans" / "a", head_like(), stacked(12))
    assert index(tmp_path / "scans") == 0
    write = Path.write_bytes

    def limited(path: Path, content: bytes) -> int:
        if path.suffix == ".b2nd":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", limited)
    monkeypatch.chdir(tmp_path)
    if named == "through a link":
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
    cache = "cache" if named == "relative" else str(tmp_path / "link" / "cache")
    flags = ["--cache", cache, "--spacing-mm", "5", "--no-head-crop", "--workers", "0"]
    assert main(PREPROCESS, ["m.csv", *flags]) == 1
    lines = capsys.readouterr().err.splitlines()[-3:]
    assert lines[0] == "error: the disk is full (No space left on device)"
    assert lines[1].startswith(f"  in {cache}/isotropic-")


def test_a_lock_that_cannot_be_filled_in_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index.lock"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("fmct.console.lock_file.json.dump", full)
        with pytest.raises(OSError, match="No space left") as raised, held(path):
            pass
    assert raised.value.filename == str(path)
    assert not path.exists()
    with held(path, patience_s=0.0):
        assert path.exists()


def test_a_lock_that_names_nobody_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "index.lock"
    path.touch()
    with held(path, patience_s=0.2):
        assert path.stat().st_size > 0
    assert not path.exists()
    path.write_text('{"host": "elsewhere", "pid": 1}')
    with pytest.raises(LockedError, match="process 1 on elsewhere"), held(path, patience_s=0.2):
        pass
    assert path.exists()


@pytest.mark.parametrize("content", ["", "path,code\na,GAP\n"])
def test_rejects_of_a_cache_that_cannot_be_read_are_named(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = VolumeCache.open(make_cohort(tmp_path, scans=2, side=8).cache)
    (cache.folder / "rejects.csv").write_text(content)
    assert main(CACHE, ["ls", str(cache.folder)]) == 2
    said = capsys.readouterr().err
    assert "the cache can't be read (rejects.csv" in said
    assert f"in {cache.folder}" in said


@pytest.mark.parametrize(
    "flags", [["--scheduler", "tcp://nowhere:1"], ["--retry-rejected"], ["--timeout-s", "3"], ["--slurm", "cores=2"]]
)
def test_verify_refuses_what_it_would_not_use(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = make_cohort(tmp_path, scans=2, side=8)
    assert main(PREPROCESS, [str(cohort.manifest), "--cache", str(cohort.cache), "--verify", *flags]) == 2
    assert f"{flags[0]} doesn't go with --verify" in capsys.readouterr().err


def test_a_cache_of_another_version_is_passed_over_and_can_be_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_cohort(tmp_path, scans=2, side=8).cache
    good = VolumeCache.open(root)
    old = VolumeCache.create(root, IsotropicSettings(spacing_mm=4))
    settings = old.folder / "settings.json"
    settings.write_text(settings.read_text().replace(f'"version": {old.settings.version}', '"version": 1'))
    assert main(CACHE, ["ls", str(root)]) == 3
    said = capsys.readouterr()
    assert said.out.startswith(f"{good.folder}\n")
    assert f"version: Input should be {old.settings.version}" in said.err
    assert main(CACHE, ["ls", str(old.folder)]) == 2
    assert main(CACHE, ["rm", str(old.folder), "--everything", "--yes"]) == 0
    assert not old.folder.exists()
    assert main(CACHE, ["ls", str(root)]) == 0


@pytest.mark.parametrize("content", ['{"editor.fontSize": 12}', "[]", "// no JSON"])
def test_a_folder_with_settings_of_another_program_is_left_alone(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "settings.json").write_text(content)
    (tmp_path / "index.parquet").write_text("mine")
    assert main(CACHE, ["rm", str(tmp_path), "--everything", "--yes"]) == 2
    assert "isn't a cache's" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"settings.json", "index.parquet"}


def test_a_wrong_root_leaves_no_empty_cache_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort = make_cohort(tmp_path, scans=8, side=8)  # whose scans exist in the cache alone
    (tmp_path / "elsewhere").mkdir()
    flags = ["--cache", str(tmp_path / "new"), "--root", str(tmp_path / "elsewhere"), "--workers", "0"]
    assert main(PREPROCESS, [str(cohort.manifest), *flags]) == 2
    assert "the scans aren't there" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
