"""`fmct bench`: what it times is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fmct.bench import COMMAND
from fmct.benchmarks.timing import Timing, time_in_turns
from fmct.console.command import main


def test_ways_take_turns() -> None:
    done: list[str] = []
    ways = {"a": lambda: done.append("a") or 3, "b": lambda: done.append("b") or 5}
    timings = time_in_turns(ways, 2)
    assert done == ["a", "b", "a", "b"]
    assert [(t.name, t.items, len(t.seconds)) for t in timings] == [("a", 3, 2), ("b", 5, 2)]
    assert Timing("x", (1.0, 4.0, 2.0), 10).per_second == 5


def test_index_is_measured_against_pydicom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND, ["index", "--series", "2", "--turns", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["way"] for row in rows] == [
        "pydicom.dcmread(stop_before_pixels=True)", "fmct: headers", "fmct index, first run",
        "fmct index, nothing changed",
    ]  # fmt: skip
    assert rows[0]["ratio"] == 1
    assert all(row["per_second"] == pytest.approx(80 / row["median_s"]) for row in rows)
    assert main(COMMAND, ["index", "--source", str(tmp_path)]) == 1
    assert "no DICOM file to read" in capsys.readouterr().err
    assert main(COMMAND, ["index", "--source", str(tmp_path / "nowhere")]) == 2


def test_flags_of_another_subject_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND, ["cache", "--series", "3"]) == 2
    assert "it is a flag of index" in capsys.readouterr().err


def test_the_cache_is_measured_against_the_published_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND, ["cache", "--scans", "1", "--turns", "1"]) == 0
    out = capsys.readouterr().out
    first = out.splitlines()[2]
    assert "torch.save of 3 x float16" in first
    assert first.endswith("1.00x")
    assert "TB" in out or "GB" in out
