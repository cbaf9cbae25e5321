"""Several manifests in one folder: none loses its rejects to another, whichever is indexed again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from index_run import NO_PIXEL_RULES
from synthetic_series import head_like, stacked, write_series

from fmct.console.command import main
from fmct.data.reject_files import rejects_of
from fmct.evaluation.cohort import manifest_summary
from fmct.index import COMMAND
from fmct.quality.rejects import read_index_rejects

Index = Callable[..., str]


@pytest.fixture
def index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Index:
    """Index an archive into a manifest of a common folder; return the name of the rejects written."""
    for name, cut in (("one", "a"), ("two", "b")):
        write_series(tmp_path / name / "good", head_like(), stacked(12))
        (tmp_path / name / f"{cut}.dcm").write_bytes((tmp_path / name / "good" / "000.dcm").read_bytes()[:300])

    def run(archive: str, out: str, *flags: str) -> str:
        key = ["--key-file", str(tmp_path / "key"), "--json", "--skip-rules", NO_PIXEL_RULES]
        assert main(COMMAND, [str(tmp_path / archive), "--out", str(tmp_path / "m" / out), *key, *flags]) == 3
        said = Path(json.loads(capsys.readouterr().out)["rejects"])
        assert said.parent == tmp_path / "m"
        return said.name

    return run


def rejected(path: Path | None) -> list[str]:
    assert path is not None
    return [Path(text).name for text in pd.read_csv(path)["path"]]


def test_two_manifests_in_a_folder_keep_their_rejects(index: Index, tmp_path: Path) -> None:
    one, two = tmp_path / "m" / "one.csv", tmp_path / "m" / "two.csv"
    for flags in ((), (), ("--fresh",)):
        assert index("one", "one.csv", *flags) == "rejects.csv"
        assert index("two", "two.csv", *flags) == "two.csv.rejects.csv"
    assert rejected(rejects_of(one)) == ["a.dcm"]
    assert rejected(rejects_of(two)) == ["b.dcm"]
    assert [Path(text).name for text in read_index_rejects(two)["path"]] == ["b.dcm"]
    assert {Path(row["file"]).name for row in manifest_summary(two, [])["rejects"]} == {"two.csv.rejects.csv"}


def test_what_was_made_of_a_manifest_has_its_rejects_where_that_is_certain(index: Index, tmp_path: Path) -> None:
    index("one", "one.csv")
    labeled = tmp_path / "m" / "labeled.csv"
    labeled.write_bytes((tmp_path / "m" / "one.csv").read_bytes())
    assert rejected(rejects_of(labeled)) == ["a.dcm"]
    index("two", "two.csv")
    assert rejects_of(labeled) is None
    assert read_index_rejects(labeled) is None


def test_a_lone_manifest_that_is_indexed_anew_keeps_the_name(index: Index, tmp_path: Path) -> None:
    index("one", "one.csv")
    (tmp_path / "m" / "one.csv.headers.sqlite").unlink()
    assert index("one", "one.csv") == "rejects.csv"
    assert rejected(tmp_path / "m" / "rejects.csv") == ["a.dcm"]
