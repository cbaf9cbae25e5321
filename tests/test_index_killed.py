"""`fmct index` goes on after a kill, and copes with a store that is damaged, foreign or in use."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from index_run import NO_PIXEL_RULES, index
from index_tree import SERIES, Work, everything, fresh_tables, tables


def damage_header(store: Path) -> None:
    store.write_bytes(b"no database" * 100)


def empty_it(store: Path) -> None:
    store.write_bytes(b"")


def other_version(store: Path) -> None:
    with sqlite3.connect(store) as database:
        database.execute("update meta set value = '0' where name = 'version'")
    database.close()


def foreign_database(store: Path) -> None:
    store.unlink()
    with sqlite3.connect(store) as database:
        database.execute("create table mine (x)")
    database.close()


@pytest.mark.parametrize("harm", [damage_header, empty_it, other_version, foreign_database])
def test_a_store_that_is_none_is_made_anew(tree: Path, work: Work, harm: Any) -> None:
    work.of(tree)
    first = tables(tree)
    harm(tree.parent / "m.csv.headers.sqlite")
    assert work.of(tree) == (everything(tree), SERIES + 1)
    assert tables(tree) == first


def test_a_store_damaged_within_is_refused_with_a_way_out(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index(tree)
    first = tables(tree)
    store = tree.parent / "m.csv.headers.sqlite"
    content = bytearray(store.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    store.write_bytes(content)
    assert index(tree) == 2
    assert "--fresh" in capsys.readouterr().err
    assert tables(tree) == first
    assert index(tree, "--fresh") == 3
    assert tables(tree) == first


def test_two_runs_at_once_do_not_share_a_store(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index(tree)
    first = tables(tree)
    store = tree.parent / "m.csv.headers.sqlite"
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path: connect(path, timeout=0.1))
    for lock in ("immediate", "exclusive"):
        with connect(store) as other:
            other.execute(f"begin {lock}")
            assert index(tree) == 2
        other.close()
        error = capsys.readouterr().err
        assert "locked" in error
        assert "let the other run end" in error
    assert index(tree) == 3
    assert tables(tree) == first


KILLED = """
import os, signal, sys
from fmct.cli import main
from fmct.data import archive, header_store, indexing, selection
archive.FILES_AT_ONCE, indexing.SLICES_AT_ONCE = 32, 24
kind, left = sys.argv[1], int(sys.argv[2])
def deadly(function):
    def wrapped(*arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return wrapped
if kind == "reading":
    archive.look_at = deadly(archive.look_at)
elif kind == "judging":
    selection.StudyJob._one = deadly(selection.StudyJob._one)
else:
    begin = header_store.HeaderStore.__init__
    def small(self, *arguments):
        begin(self, *arguments)
        self.database.execute("pragma cache_size = 4")
    header_store.HeaderStore.__init__ = small
    archive.FILES_AT_ONCE = 1000
    header_store.HeaderStore.enter = deadly(header_store.HeaderStore.enter)
sys.exit(main(["index", *sys.argv[3:]]))
"""


def killed(tree: Path, kind: str, after: int) -> None:
    where = [str(tree), "--out", str(tree.parent / "m.csv"), "--key-file", str(tree.parent / "key")]
    arguments = [sys.executable, "-c", KILLED, kind, str(after), *where, "--skip-rules", NO_PIXEL_RULES]
    ended = subprocess.run(arguments, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert not (tree.parent / "m.csv").exists()


def test_a_run_killed_while_reading_goes_on(tree: Path, work: Work) -> None:
    killed(tree, "reading", 100)
    assert work.of(tree) == (everything(tree) - 96, SERIES + 1)
    assert tables(tree) == fresh_tables(tree)


def test_a_run_killed_while_judging_goes_on(tree: Path, work: Work) -> None:
    killed(tree, "judging", 4)
    read, judged = work.of(tree)
    assert read == 0
    assert judged < SERIES + 1
    assert tables(tree) == fresh_tables(tree)


@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
def test_a_run_killed_while_writing_goes_on(tree: Path, work: Work, fresh: list[str]) -> None:
    killed(tree, "writing", 100)
    assert list(tree.parent.glob("*-journal"))  # half of the changes are in the file, and must be undone
    assert work.of(tree, *fresh) == (everything(tree), SERIES + 1)
    assert tables(tree) == fresh_tables(tree)
