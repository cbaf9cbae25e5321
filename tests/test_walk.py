"""Which files are looked at, whatever lies in the folders; and how their names are written and found again."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from index_run import index, manifest, rejects
from pydicom import dcmread
from synthetic_series import head_like, stacked, write_series

from fmct.cli import main
from fmct.console.errors import UsageError
from fmct.data.manifest import read_manifest
from fmct.data.series import find_scans
from fmct.data.walk import PassedOver, files_under, folders_under


def names_under(*paths: Path) -> list[str]:
    return [path.name for path in files_under(list(paths))]


def test_hidden_files_are_passed_over_and_counted(tmp_path: Path) -> None:
    for name in ("a", ".DS_Store", "__MACOSX/a", ".git/x", "sub/.hidden", "sub/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    passed = PassedOver()
    found = [names for _, names in folders_under([tmp_path], passed)]
    assert found == [["a"], ["b"]]
    assert passed.counts == {"hidden files and folders": 4}
    assert names_under(tmp_path / "sub" / ".hidden") == [".hidden"]  # one who names it means it


def test_the_order_is_that_of_the_names(tmp_path: Path) -> None:
    names = [f"{letter}/{number}" for letter in "cabed" for number in (3, 1, 2)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in files_under([tmp_path])] == sorted(names)


def test_links_lead_nowhere_but_to_hidden_files_inside(tmp_path: Path) -> None:
    root, outside = tmp_path / "in", tmp_path / "out"
    (root / ".annex").mkdir(parents=True)
    outside.mkdir()
    for path in (root / ".annex" / "object", root / "plain", outside / "secret"):
        path.write_text("x")
    for name, target in {
        "once": ".annex/object",
        "again": ".annex/object",
        "double": "plain",
        "broken": "nothing",
        "circle": "circle",
        "folder": "../out",
        "up": "..",
        "leak": "../out/secret",
    }.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(root)  # a socket's path may have a hundred characters only
        try:
            listening.bind("socket")
        finally:
            os.chdir(here)
        passed = PassedOver()
        ((_, names),) = folders_under([root], passed)
    assert names == ["again", "plain"]
    assert passed.counts == {
        "hidden files and folders": 1,
        "links to files that are read anyway": 2,
        "links to folders, or to nothing": 4,
        "links to files outside": 1,
        "pipes, sockets and devices": 2,
    }


def test_every_file_comes_once_however_the_roots_overlap(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / ".cache").mkdir()
    for path in (tmp_path / "1", tmp_path / "a" / "2", inner / "3", tmp_path / ".cache" / "4"):
        path.touch()
    (tmp_path / "alias").symlink_to("a")
    assert sorted(names_under(inner, tmp_path, tmp_path / "a", tmp_path / "alias")) == ["1", "2", "3"]
    assert names_under(inner / "3", tmp_path / "a", inner / "3") == ["2", "3"]
    assert names_under(tmp_path / ".cache", tmp_path) == ["4", "1", "2", "3"]
    with pytest.raises(UsageError, match="no such file or folder"):
        names_under(tmp_path / "nowhere")


def test_folders_may_be_deeper_than_recursion_goes(tmp_path: Path) -> None:
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(1500):
            Path("d").mkdir()
            os.chdir("d")
        Path("file").touch()
        assert names_under(tmp_path) == ["file"]
        Path("file").unlink()
        for _ in range(1500):  # pytest's own cleaning is recursive
            os.chdir("..")
            Path("d").rmdir()
    finally:
        os.chdir(here)


def test_folders_that_cannot_be_listed_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "in" / "good", head_like(), stacked(12))
    write_series(tmp_path / "in" / "locked", head_like(), stacked(12))
    listed = os.scandir

    def scandir(path: str) -> object:  # tests may run as a user whom nothing is locked to
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        assert index(tmp_path / "in") == 3
        assert rejects(tmp_path) == {"in/locked": "UNREADABLE"}
        assert main(["index", str(tmp_path / "in" / "locked"), "--out", str(tmp_path / "x" / "m.csv"),
                     "--key-file", str(tmp_path / "key")]) == 3  # fmt: skip
    assert index(tmp_path / "in") == 0
    assert len(manifest(tmp_path)) == 2


def test_the_tables_may_lie_among_the_scans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "in"
    write_series(root / "a", head_like(), stacked(12))
    arguments = ["index", str(root), "--out", str(root / "m.csv"), "--key-file", str(tmp_path / "key"), "--json",
                 "--skip-rules", "NOT_A_HEAD,IMPLAUSIBLE_HU"]  # fmt: skip
    written = []
    for _ in range(3):
        assert main(arguments) == 0
        written.append((capsys.readouterr().out, (root / "m.csv").read_bytes(), (root / "rejects.csv").read_bytes()))
    assert '"other files"' not in written[0][0]
    assert '"unchanged_files": 12' in written[1][0]
    assert written[1:] == [written[1]] * 2
    assert written[0][1:] == written[1][1:]


def test_a_root_may_be_a_file_or_the_scan_itself(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in", head_like(), stacked(12))
    arguments = ["--key-file", str(tmp_path / "key"), "--skip-rules", "NOT_A_HEAD,IMPLAUSIBLE_HU"]
    for number, extra in enumerate(([], ["--redact-paths"])):
        out = tmp_path / f"o{number}" / "m.csv"
        assert main(["index", *map(str, paths), "--out", str(out), *arguments, *extra]) == 0
        assert read_manifest(out)["path"].tolist() == ["."]
        assert read_manifest(out)["n_slices"].tolist() == [12]
    assert main(["index", str(paths[0]), "--out", str(tmp_path / "one.csv"), *arguments]) == 3
    assert rejects(tmp_path) == {"in/000.dcm": "TOO_FEW_SLICES"}


def test_linked_files_of_a_scan_are_found_again(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in" / "head", head_like(), stacked(12))
    store = tmp_path / "in" / ".git" / "annex"
    store.mkdir(parents=True)
    for number, path in enumerate(paths):
        shutil.move(path, store / f"object{number}")
        path.symlink_to(store / f"object{number}")
    assert index(tmp_path / "in") == 0
    assert manifest(tmp_path)["path"].tolist() == ["in/head"]
    (scan,), _ = find_scans([tmp_path / "in" / "head"], root=tmp_path / "in")
    assert scan.scan_id == manifest(tmp_path)["scan_id"].iloc[0]
    assert find_scans([tmp_path / "in" / "head"])[0] == []  # without a root, the folder itself


def test_files_that_say_scan_by_name_alone_are_named(tmp_path: Path) -> None:
    root = tmp_path / "in"
    (path, *_) = write_series(root / "a", head_like(), stacked(12))
    (root / "zeros.dcm").write_bytes(bytes(4000))
    (root / "zeros").write_bytes(bytes(4000))
    (root / "empty.dcm").touch()
    (root / "empty").touch()
    (root / "notes.IMA").write_text("see the other folder " * 20)
    (root / "page.nii").write_text("<html>" * 100)
    bare = dcmread(path)
    del bare.Modality
    (root / "bare.dcm").write_bytes(b"\x08\0\x05\0" + bytes(300))
    (root / "bare").write_bytes(b"\x08\0\x05\0" + bytes(300))
    assert index(root) == 3
    assert rejects(tmp_path) == {
        "in/zeros.dcm": "UNREADABLE",
        "in/empty.dcm": "EMPTY",
        "in/notes.IMA": "UNREADABLE",
        "in/page.nii": "UNREADABLE",
        "in/bare.dcm": "UNREADABLE",
    }


def test_positions_of_slices_stay_exact_in_the_store(tmp_path: Path) -> None:
    places = stacked(12) + np.random.default_rng(0).normal(0, 1e-3, (12, 1)) * [0, 0, 1]
    write_series(tmp_path / "in", head_like(), places)
    assert index(tmp_path / "in") == 0
    row = manifest(tmp_path).iloc[0]
    (scan,), _ = find_scans([tmp_path / "in"])
    assert {name: row[name] for name in ("scan_id", "slice_gap_max_mm")} == {
        "scan_id": scan.scan_id,
        "slice_gap_max_mm": scan.facts["slice_gap_max_mm"],
    }
