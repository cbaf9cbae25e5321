"""A series' files are parsed once, and what was kept of them gives the pixels that reading them anew gives."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from single_files import multi_frame, save, transcode
from synthetic_series import SKULL_GAP_MM, SKULL_PIXEL_MM, head_like, stacked, write_series

from fmct.data import dicom
from fmct.data.cache_building import load_row
from fmct.data.dicom import read_hu
from fmct.data.rejection import ScanError
from fmct.data.scan import Scan
from fmct.data.series import find_scans, slice_headers


def series(folder: Path, **tags: Any) -> list[Path]:
    return write_series(folder, head_like(), stacked(12, SKULL_GAP_MM), pixel_mm=SKULL_PIXEL_MM, **tags)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file's header is parsed, by name."""
    counts: Counter[str] = Counter()
    original = dicom.open_dicom

    def counting(path: Path, wanted: Any) -> Any:
        counts[path.name] += 1
        return original(path, wanted)

    monkeypatch.setattr(dicom, "open_dicom", counting)
    return counts


def row_of(scan: Scan) -> dict[Any, Any]:
    return {"scan_id": scan.scan_id, "path": scan.path.name, "format": "dicom", "n_slices": len(scan.slices)}


def anew(scan: Scan) -> np.ndarray:
    return np.stack([read_hu(header.path, header.frame) for header in scan.slices])


def test_a_series_of_a_manifest_is_parsed_once(tmp_path: Path, parsed: Counter[str]) -> None:
    paths = series(tmp_path / "a") + series(tmp_path / "a" / "other")
    scans, _ = find_scans([tmp_path / "a"])
    parsed.clear()
    found: dict[Path, list[Scan]] = {}
    stacks = [load_row(row_of(scan) | {"path": "a"}, tmp_path, found) for scan in scans]
    assert len(stacks) == 2
    assert sum(parsed.values()) == len(paths)
    assert set(parsed.values()) == {2}  # files of the same name in both folders
    for scan, stack in zip(scans, stacks, strict=True):
        assert np.array_equal(stack.hu, anew(scan))


@pytest.mark.parametrize("name", [None, "JPEGLosslessProcess14_1", "RLELossless"])
def test_pixels_are_those_that_reading_anew_gives(tmp_path: Path, parsed: Counter[str], name: str | None) -> None:
    paths = series(tmp_path / "a", PixelPaddingValue=-1990, RescaleSlope=2, RescaleIntercept=-1000)
    if name is not None:
        for path in paths:
            assert transcode(path, path.with_suffix(".new"), name)
            path.with_suffix(".new").rename(path)
    (scan,), _ = find_scans([tmp_path / "a"])
    parsed.clear()
    stack = scan.load()
    assert not parsed
    assert np.array_equal(stack.hu, anew(scan))


def test_files_that_changed_are_read_anew(tmp_path: Path) -> None:
    paths = series(tmp_path / "a")
    (scan,), _ = find_scans([tmp_path / "a"])
    slices = {header.path: k for k, header in enumerate(scan.slices)}
    before = scan.load().hu
    content = paths[3].read_bytes()
    place = content.index(b"\xe0\x7f\x10\0OW")
    paths[3].write_bytes(content[:place] + content[place : place + 12] + bytes(len(content) - place - 12))
    os.utime(paths[3], ns=(0, 0))
    after = scan.load().hu
    changed = [k for k in range(12) if not np.array_equal(before[k], after[k])]
    assert changed == [slices[paths[3]]]
    paths[3].write_bytes(content[:-40])
    with pytest.raises(ScanError, match="cut short"):
        scan.load()


def test_nothing_is_kept_where_it_is_not_asked_for_or_not_enough(tmp_path: Path, parsed: Counter[str]) -> None:
    series(tmp_path / "a")
    assert all(header.pixels is None for header in slice_headers([tmp_path / "a"]))
    hu = head_like()
    positions = stacked(12, SKULL_GAP_MM)
    (tmp_path / "b").mkdir()
    frames = multi_frame(hu, positions)
    for group in frames.SharedFunctionalGroupsSequence:
        group.PixelMeasuresSequence[0].PixelSpacing = list(SKULL_PIXEL_MM)
    save(frames, tmp_path / "b" / "all")
    (scan,), _ = find_scans([tmp_path / "b"])
    assert all(header.pixels is None for header in scan.slices)
    parsed.clear()
    assert np.array_equal(scan.load().hu, anew(scan))
    assert parsed["all"] == 1 + 12


def test_a_rescale_that_is_no_number_is_told_when_pixels_are_read(tmp_path: Path) -> None:
    series(tmp_path / "a", RescaleSlope=None)
    (path, *_) = sorted((tmp_path / "a").iterdir())
    content = path.read_bytes()
    path.write_bytes(content.replace(b"-1024", b"-1x24"))
    (scan,), _ = find_scans([tmp_path / "a"])
    with pytest.raises(ScanError, match="can't be decoded"):
        scan.load()
