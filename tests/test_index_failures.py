"""What breaks while `fmct index` runs costs one file or one study, and is tried again if the disk may be at fault."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from index_run import index, manifest, reject_rows, rejects
from synthetic_series import head_like, stacked, write_series


def test_a_slice_with_broken_pixels_is_named(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in" / "a", head_like(), stacked(12))
    write_series(tmp_path / "in" / "b", head_like(seed=1), stacked(12))
    paths[6].write_bytes(paths[6].read_bytes()[:-1500])
    assert index(tmp_path / "in", skip="NOT_A_HEAD") == 3
    assert rejects(tmp_path) == {"in/a/006.dcm": "UNREADABLE", "in/a": "GAP"}
    assert manifest(tmp_path)["path"].tolist() == ["in/b"]


def test_what_breaks_unexpectedly_costs_one_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fmct.data import selection

    for name in "abc":
        write_series(tmp_path / "in" / name, head_like(), stacked(12), ManufacturerModelName=name)
    judge = selection.judge_study

    def broken(headers: list, rules: object) -> object:
        if headers[0].model == "b":
            raise ZeroDivisionError("DOE^JOHN")
        return judge(headers, rules)

    with monkeypatch.context() as patch:
        patch.setattr(selection, "judge_study", broken)
        assert index(tmp_path / "in") == 3
    assert reject_rows(tmp_path)[["path", "code", "detail"]].values.tolist() == [
        ["in/b", "FAILED", "judging broke off (ZeroDivisionError)"]
    ]
    assert manifest(tmp_path)["path"].tolist() == ["in/a", "in/c"]
    assert index(tmp_path / "in") == 0  # it is tried again, though it hasn't changed
    assert manifest(tmp_path)["path"].tolist() == ["in/a", "in/b", "in/c"]


def test_headers_that_break_unexpectedly_cost_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fmct.data import archive

    write_series(tmp_path / "in", head_like(14), stacked(14))
    (tmp_path / "in" / "locked").write_bytes((tmp_path / "in" / "000.dcm").read_bytes())
    read = archive.has_prefix

    def broken(path: Path) -> bool | None:
        if path.name == "013.dcm":
            raise ZeroDivisionError
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(archive, "has_prefix", broken)
        assert index(tmp_path / "in") == 3
    assert reject_rows(tmp_path)[["path", "code", "detail"]].values.tolist() == [
        ["in/013.dcm", "UNREADABLE", "header can't be parsed (ZeroDivisionError)"],
        ["in/locked", "UNREADABLE", "can't be opened (Permission denied)"],
    ]
    assert index(tmp_path / "in") == 3
    assert rejects(tmp_path) == {"in/013.dcm": "UNREADABLE"}  # what wasn't the file's fault is tried again
    assert manifest(tmp_path)["n_slices"].tolist() == [13]


@pytest.mark.parametrize("redact", [[], ["--redact-paths"]], ids=["plain", "redacted"])
def test_files_that_vanish_meanwhile_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redact: list[str]
) -> None:
    from fmct.data import archive

    paths = write_series(tmp_path / "in" / "a", head_like(), stacked(12))
    write_series(tmp_path / "in" / "b", head_like(seed=1), stacked(12))
    look = archive.look_at

    def vanishing(path: Path, key: bytes, pixels: bool = False) -> object:
        if path == tmp_path / "in" / "b" / "007.dcm":
            path.unlink()  # before its header is read
            paths[5].unlink()  # after; the look at pixels takes this one
        return look(path, key, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(archive, "look_at", vanishing)
        assert index(tmp_path / "in", *redact, skip="NOT_A_HEAD") == 3
    assert sorted(reject_rows(tmp_path)["code"]) == ["GAP", "UNREADABLE", "UNREADABLE"]
    assert index(tmp_path / "in", *redact, skip="NOT_A_HEAD") == 3
    assert set(reject_rows(tmp_path)["code"]) == {"GAP"}


def test_usage_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert index(tmp_path / "nowhere") == 2
    assert "there is no such folder" in capsys.readouterr().err
    (tmp_path / "in").mkdir()
    assert index(tmp_path / "in") == 2
    assert "no DICOM image and no NIfTI" in capsys.readouterr().err
    (tmp_path / "in" / "notes.txt").write_text("nothing here")
    assert index(tmp_path / "in") == 2
    assert "no DICOM image and no NIfTI" in capsys.readouterr().err
    assert not (tmp_path / "m.csv").exists()
    write_series(tmp_path / "in", head_like(), stacked(12))
    (tmp_path / "else").mkdir()
    assert index(tmp_path / "in", "--root", str(tmp_path / "else")) == 2
    assert index(tmp_path / "in", "--out", str(tmp_path / "m.json")) == 2
    assert index(tmp_path / "in", "--skip-rules", "GAPS") == 2
    assert "did you mean GAP?" in capsys.readouterr().err
    assert index(tmp_path / "in", "--skip-rules", "NO_GEOMETRY") == 2
    assert "can't be switched off" in capsys.readouterr().err
    assert index(tmp_path / "in", "--add-rules", "GAP") == 2
    (tmp_path / "file").touch()
    assert index(tmp_path / "in", "--out", str(tmp_path / "file" / "m.csv")) == 2
    assert "can't be written to" in capsys.readouterr().err
    (tmp_path / "key").write_text("short")
    assert index(tmp_path / "in") == 2
    assert "5 characters" in capsys.readouterr().err


def test_the_store_is_for_its_owner_alone(tmp_path: Path) -> None:
    write_series(tmp_path / "in", head_like(), stacked(12))
    before = os.umask(0)
    try:
        assert index(tmp_path / "in") == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m.csv.headers.sqlite").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
