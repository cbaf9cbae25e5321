"""Measuring preprocessing: every way in a process of its own, with the memory allocator told to keep what it has."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from fmct.benchmarks import preprocessing, preprocessing_ways, published_chain
from fmct.benchmarks.preprocessing_ways import DECODE, FMHCT, PUBLISHED, READ, scans_at, ways
from fmct.benchmarks.timing import Timing
from fmct.console.errors import UsageError
from fmct.data.phantom.acquisition import scan
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.scanner import SCANNERS, Overrides
from fmct.data.phantom.writer import Identity, write_dicom
from fmct.data.rejection import ScanError


def small_series(folder: Path) -> Path:
    overrides = Overrides(pixel_mm=3.0, slice_mm=5.0)
    made = scan(HeadParameters(seed=8), SCANNERS["scanner_a"], np.random.default_rng(0), overrides=overrides, even=True)
    write_dicom(made, folder / "series", Identity(patient_id="B1", age_years=60, sex="F", study="bench"))
    return folder / "series"


def test_a_series_is_measured_against_bare_decoding(tmp_path: Path) -> None:
    (series,) = scans_at(small_series(tmp_path))
    timings = preprocessing.time_ways(series, turns=2)
    assert [timing.name for timing in timings] == [*ways(series), preprocessing.AIM]
    assert [timing.name for timing in timings][:2] == [DECODE, READ]
    assert timings[-1].seconds == tuple(1.3 * seconds + 0.06 for seconds in timings[0].seconds)
    assert all(len(timing.seconds) == 2 and timing.fastest_s > 0 for timing in timings)
    case = preprocessing.Case("small", timings, {})
    assert case.ratio(timings[0]) == 1
    assert case.ratio(timings[2]) < 1  # whoever makes a volume decodes too
    peak_mb = preprocessing.in_fresh_process(partial(preprocessing.peak_mb, series, FMHCT))
    assert 50 < peak_mb < 800


@pytest.mark.slow
def test_phantoms_and_a_scan_of_ones_own_are_measured(tmp_path: Path) -> None:
    source = small_series(tmp_path)
    cases = preprocessing.measure_preprocessing(turns=1, source=source)
    dicom = [preprocessing.THICK_DICOM, preprocessing.THIN_DICOM]
    expected = [preprocessing.THICK, preprocessing.THIN, *dicom, "series"]
    assert [case.name for case in cases] == expected
    for case in cases[:2]:
        assert case.timings[0].name == PUBLISHED
        assert case.ratio(case.timings[1]) > 3  # 10 and more where nothing else runs
        assert case.peak_mb[FMHCT] < 800 < case.peak_mb[PUBLISHED]


def test_what_cannot_be_measured_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such scan"):
        preprocessing.measure_preprocessing(1, tmp_path / "none.nii.gz")
    flat = tmp_path / "flat.nii.gz"
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), 100, np.int16), np.diag([8.0, 8, 8, 1])), flat)
    with pytest.raises(ScanError, match="IMPLAUSIBLE_HU"):
        preprocessing.measure_preprocessing(1, flat)


def test_a_folder_of_scans_is_measured_without_those_that_are_refused(tmp_path: Path) -> None:
    small_series(tmp_path / "in")
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), 100, np.int16), np.diag([8.0, 8, 8, 1])), tmp_path / "in" / "f.nii")
    (source,) = preprocessing.measurable(tmp_path / "in")
    assert source.name == "in/series"
    assert len(source.files) == source.row["n_slices"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no usable scan"):
        preprocessing.measurable(tmp_path / "empty")


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = preprocessing.MALLOC
    monkeypatch.setenv(first, "1")
    monkeypatch.delenv(second, raising=False)
    with preprocessing.tuned_malloc():
        assert {name: os.environ[name] for name in preprocessing.MALLOC} == preprocessing.MALLOC
    assert os.environ[first] == "1"
    assert second not in os.environ


def test_the_published_chain_has_one_thread_and_gives_the_others_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    source = preprocessing_ways.Source("scan", {"path": "scan.nii.gz"}, Path(), ())
    monkeypatch.setattr(published_chain, "published_input", lambda _: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert preprocessing_ways.run_published(source) == 1
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_timings_say_their_spread() -> None:
    timing = Timing("way", (0.3, 0.1, 0.2), 4)
    assert (timing.fastest_s, timing.median_s, timing.slowest_s, timing.per_second) == (0.1, 0.2, 0.3, 20)
