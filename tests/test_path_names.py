"""Whatever files and folders are called, their names are written and found again."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_run import index, rejects
from synthetic_series import head_like, stacked, write_series

from fmct.cli import main
from fmct.console.errors import UsageError
from fmct.data.manifest import read_manifest, scan_path
from fmct.data.path_names import PathNames, escaped, unescaped

WEIRD = [
    b"line\nend", b"carriage\rreturn", b"M\xfcller", "Müller".encode(), b'quote"comma,', b" blanks ", b"back\\x41slash",
    b"\xff\xfe", b"x" * 255, b"tab\tbell\x07", b"~", b"-out", b"%s", b"\xe2\x80\xa8", b"=1+1", b"#", b"NA", b"1e5",
]  # fmt: skip


@pytest.mark.parametrize("redact", [[], ["--redact-paths"]], ids=["plain", "redacted"])
def test_names_may_be_anything(tmp_path: Path, redact: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(WEIRD):
        folder = tmp_path / "in" / os.fsdecode(name)
        write_series(folder, head_like(seed=number), stacked(12), names=[f"{k} {k}\n" for k in range(12)])
    (tmp_path / "in" / "cut.dcm\udcff").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    assert index(tmp_path / "in", *redact) == 3
    rows = read_manifest(tmp_path / "m.csv")
    assert len(rows) == len(WEIRD)
    assert list(rejects(tmp_path).values()) == ["UNREADABLE"]
    monkeypatch.setenv("FMCT_KEY_FILE", str(tmp_path / "key"))
    places = {os.fsencode(scan_path(row, tmp_path).name) for row in rows.to_dict("records")}
    assert places == set(WEIRD)
    tables = (tmp_path / "m.csv").read_bytes(), (tmp_path / "rejects.csv").read_bytes()
    assert index(tmp_path / "in", *redact) == 3
    assert tables == ((tmp_path / "m.csv").read_bytes(), (tmp_path / "rejects.csv").read_bytes())
    assert pd.read_csv(tmp_path / "m.csv", dtype=str)["scan_id"].nunique() == len(WEIRD)


def test_the_folders_of_the_command_line_may_be_called_anything(tmp_path: Path) -> None:
    outer = tmp_path / "M\udcfcller"
    write_series(outer / "in" / "a", head_like(), stacked(12))
    assert index(outer / "in") == 0
    out = tmp_path / "out \udcff" / "m.csv"
    arguments = ["--out", str(out), "--key-file", str(outer / "key"), "--skip-rules", "NOT_A_HEAD,IMPLAUSIBLE_HU"]
    assert main(["index", str(outer / "in"), *arguments]) == 0
    assert main(["index", str(outer / "nowhere"), *arguments]) == 2
    assert read_manifest(out)["path"].tolist() == ["a"]


@given(st.binary(min_size=1, max_size=12).filter(lambda name: not {0, 47} & set(name)))
@settings(max_examples=300, deadline=None)
def test_any_name_can_be_written_and_found_again(name: bytes) -> None:
    text = os.fsdecode(name)
    assert unescaped(escaped(text)) == text
    written = escaped(text)
    assert written.encode().decode() == written
    assert not any(ord(character) < 32 for character in written)


def test_names_that_differ_are_written_differently(tmp_path: Path) -> None:
    twins = ["a", "a ", " a", "a\n", "a\\x0a", "a\\x5cx0a", "~0123456789abcdef", "A"]
    for names in (PathNames(tmp_path), PathNames(tmp_path, b"k" * 32)):
        assert len({names.written(tmp_path / twin) for twin in twins}) == len(twins)
        for twin in twins:
            (tmp_path / twin).touch()
            assert names.real(names.written(tmp_path / twin)) == tmp_path / twin
        assert names.written(tmp_path) == "."
        assert names.real(".") == tmp_path


def test_a_hash_without_a_name(tmp_path: Path) -> None:
    names = PathNames(tmp_path, b"k" * 32)
    written = names.written(tmp_path / "later")
    with pytest.raises(UsageError, match="no name in the folder has the hash"):
        names.real(written)
    assert names.real(written, guess=True).name == written
    (tmp_path / "later").touch()
    assert names.real(written) == tmp_path / "later"  # what came since is found
