"""Hundreds of thousands of scans: what `fmct bench` measures, at a size for tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fmct.benchmarks.large_archive import DISTINCT, SIDE, large_cache, large_manifest
from fmct.benchmarks.scale import Figure, extrapolate, feed, measure_scale, table
from fmct.data.manifest import read_manifest, write_manifest


def test_a_large_archive_is_one_that_can_be_read_and_split(tmp_path: Path) -> None:
    frame = large_manifest(300, 120)
    write_manifest(frame, tmp_path / "m.csv")
    read = read_manifest(tmp_path / "m.csv")  # which checks that no patient is in two splits
    assert len(read) == 300
    assert read["patient_id"].nunique() == 120
    assert read["scan_id"].is_unique
    assert set(read["label:ICH"].dropna()) == {0, 1}
    assert read["label:ICH"].isna().any()


def test_volumes_of_a_large_cache_repeat_and_are_sound(tmp_path: Path) -> None:
    frame = large_manifest(DISTINCT + 5, 500)
    cache = large_cache(tmp_path, frame["scan_id"])
    assert len(cache) == DISTINCT + 5
    first, again = (frame["scan_id"].iloc[row] for row in (3, DISTINCT + 3))
    assert np.array_equal(cache.read(first), cache.read(again))
    cache.verify(again)
    assert cache.read(again).shape == (SIDE, SIDE, SIDE)


def test_feeding_measures_the_first_batch_and_the_workers_memory(tmp_path: Path) -> None:
    frame = large_manifest(400, 200)
    write_manifest(frame, tmp_path / "m.parquet")
    large_cache(tmp_path / "cache", frame["scan_id"])
    figures = {figure.what: figure for figure in feed(tmp_path / "m.parquet", tmp_path / "cache", 120, 2)}
    assert 0 < figures["first batch of an epoch"].value < 10
    assert figures["scans fed per second, 2 workers"].value > 0
    growth = figures["growth of a worker's own memory from batch 60 to batch 120"]
    assert growth.met
    assert figures["  a worker's own memory at the end"].value > 1
    assert "first batch of an epoch" in table(list(figures.values()))


def test_private_memory_is_what_a_process_has_for_itself() -> None:
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("only Linux says how much memory is a process's own")
    # in a process of its own: in this one other threads and the garbage collector give memory back meanwhile
    code = """
import os
from fmct.benchmarks.fresh_process import peak_memory
from fmct.benchmarks.scale import private_memory
before = private_memory(os.getpid())
block = b"1" * 40_000_000  # so large that it is always memory no one had before
print(private_memory(os.getpid()) - before)
assert peak_memory() > private_memory(os.getpid())
"""
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 35e6 < float(grown) < 60e6


def test_goals_are_upper_limits() -> None:
    assert Figure("a", 5.0, "s", 5.0).met
    assert not Figure("a", 5.1, "s", 5.0).met
    assert Figure("a", 5.1, "s").met
    assert "MISSED" in table([Figure("a", 5.1, "s", 5.0)])


def test_an_archive_takes_its_share_of_the_cores() -> None:
    lines = extrapolate(361_663, seconds_per_scan=0.1, bytes_per_scan=0.59e6)
    assert lines[0].endswith("10.0 h on 1, 0.6 h on 16, 0.0 h on 256 core(s)")
    assert lines[1].endswith("0.21 TB")


@pytest.mark.slow
def test_all_figures_are_there() -> None:
    figures, lines = measure_scale(0.1, 0.59e6, scans=2000, patients=800, batches=200)
    assert len(figures) == 11
    assert all(figure.value >= 0 or "growth" in figure.what for figure in figures)
    assert lines[0].startswith("2,000 scans of 800 patients")
