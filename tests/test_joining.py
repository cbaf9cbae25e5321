"""A head scanned in two series is put together by geometry, or rejected with what stands in the way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_run import index, manifest, reject_rows, rejects
from slice_headers import stack_at
from synthetic_series import head_like, stacked, tilted, write_series

from fmct.data.dicom import SliceHeader
from fmct.data.gaps import holes_in
from fmct.data.joining import join_parts
from fmct.data.series import find_scans
from fmct.data.series_rules import positions_mm

BASE = np.arange(24) * 2.5
VERTEX = 60 + np.arange(18) * 5.0


def base(**changes: Any) -> list[SliceHeader]:
    return stack_at(changes.pop("z", BASE), series_id="base", **changes)


def vertex(**changes: Any) -> list[SliceHeader]:
    return stack_at(changes.pop("z", VERTEX), series_id="vertex", **changes)


def heights(stack: list[SliceHeader]) -> list[float]:
    return [header.position_lps_mm[2] for header in stack]


@pytest.mark.parametrize("order", [1, -1])
def test_base_and_vertex_become_one_stack(order: int) -> None:
    joined = join_parts([base(), vertex()][::order])
    (stack,) = joined.stacks
    assert heights(stack) == [*BASE, *VERTEX]
    assert (joined.parts, joined.overlapping) == ([], 0)
    assert holes_in(positions_mm(stack)) == []


@pytest.mark.parametrize(("overlap_mm", "left_out"), [(2.5, 1), (5, 1), (7.5, 2), (15, 4)])
def test_what_both_show_is_taken_once(overlap_mm: float, left_out: int) -> None:
    joined = join_parts([base(), vertex(z=57.5 + 5 * np.arange(20) - overlap_mm + 2.5)])
    (stack,) = joined.stacks
    gaps = np.diff(heights(stack))
    assert gaps.min() >= 1.25
    assert gaps.max() <= 5
    assert len(stack) + joined.overlapping == 44
    assert joined.overlapping <= left_out


def test_three_parts_are_joined_too() -> None:
    parts = [stack_at(start + np.arange(10) * 4.0, series_id=f"{start}") for start in (80, 0, 40)]
    (stack,) = join_parts(parts).stacks
    assert heights(stack) == list(np.arange(30) * 4.0)


def test_tilted_parts_are_joined_along_their_normal() -> None:
    joined = join_parts([base(orientation_lps=tilted(18)), vertex(orientation_lps=tilted(18))])
    assert [len(stack) for stack in joined.stacks] == [42]


@pytest.mark.parametrize(
    ("changes", "obstacle"),
    [
        ({"orientation_lps": tilted(12)}, r"at another angle \(12.0 degrees between them\)"),
        ({"frame_of_reference": "other"}, "another frame of reference"),
        ({"rows": 256}, r"another matrix \(256 x 512, not 512 x 512\)"),
        ({"pixel_spacing_mm": (0.5, 0.5)}, "another pixel size"),
        ({"kernel": "H60s"}, "another kernel or tube voltage"),
        ({"kvp": 140.0}, "another kernel or tube voltage"),
        ({"z": VERTEX + 8}, "slices are missing between them"),
    ],
)
def test_parts_that_do_not_fit_are_left_over_with_a_reason(changes: dict[str, Any], obstacle: str) -> None:
    joined = join_parts([base(), vertex(**changes)])
    assert joined.stacks == []
    assert len(joined.parts) == 2
    (detail,) = [text for stack, text in joined.parts if stack[0].series_id == "base"]
    assert detail.startswith("slices cover 58 mm; the rest of the head is in another stack")
    assert re.search(obstacle, detail)


@pytest.mark.parametrize(
    "others",
    [
        [stack_at(np.arange(30) * 5.0, series_id="whole")],  # a whole head beside it
        [stack_at(BASE, series_id="again", kernel="H60s")],  # another reconstruction of the same part
        [stack_at(np.arange(12) * 5.0, series_id="thick")],
        [stack_at(VERTEX + 200, series_id="far away")],
        [stack_at(VERTEX, series_id="sagittal", orientation_lps=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0))],
        [],
    ],
)
def test_a_part_without_another_stays_as_it_is(others: list[list[SliceHeader]]) -> None:
    joined = join_parts([base(), *others])
    assert joined.parts == []
    assert sorted(len(stack) for stack in joined.stacks) == sorted(len(stack) for stack in [base(), *others])


def test_no_slice_is_lost_whatever_the_parts() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        parts = []
        for number in range(rng.integers(1, 6)):
            count, gap = int(rng.integers(2, 30)), float(rng.choice([2.5, 3, 5]))
            z = rng.uniform(-50, 120) + np.arange(count) * gap
            changes = {"kernel": str(rng.choice(["H31s", "H60s"])), "kvp": float(rng.choice([120, 140]))}
            parts.append(stack_at(z, series_id=str(number), **changes))
        joined = join_parts(parts)
        kept = [header for stack in joined.stacks for header in stack]
        kept += [header for stack, _ in joined.parts for header in stack]
        assert len(kept) + joined.overlapping == sum(map(len, parts))
        assert len({id(header) for header in kept}) == len(kept)
        for stack in joined.stacks:
            assert np.diff(heights(stack)).min() > 0


def write_two(root: Path, gap_mm: float = 4.0, **vertex_tags: Any) -> np.ndarray:
    """Write a head of 32 slices as two series of 16 in two folders; return its voxels."""
    hu, places = head_like(32), stacked(32, gap_mm)
    uids = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    write_series(root / "base", hu[:16], places[:16], **uids)
    write_series(root / "vertex", hu[16:], places[16:], **{**uids, **vertex_tags})
    return hu


def test_a_joined_head_is_one_scan_of_the_study_folder(tmp_path: Path) -> None:
    hu = write_two(tmp_path / "in" / "study")
    assert index(tmp_path / "in") == 0
    row = manifest(tmp_path).iloc[0]
    assert (row["path"], row["n_slices"]) == ("in/study", 32)
    assert row["slice_gap_max_mm"] == 4.0
    assert len(row["series_id"].split("+")) == 2
    (scan,), _ = find_scans([tmp_path / "in" / "study"])
    assert scan.scan_id == row["scan_id"]
    assert np.array_equal(scan.load().hu, hu)


def test_parts_that_do_not_fit_are_rejected_by_index(tmp_path: Path) -> None:
    write_two(tmp_path / "in" / "study", KVP="140")
    assert index(tmp_path / "in") == 3
    assert rejects(tmp_path) == {"in/study/base": "SPLIT_HEAD", "in/study/vertex": "SPLIT_HEAD"}
    assert "another kernel or tube voltage" in reject_rows(tmp_path)["detail"].iloc[0]
    assert manifest_is_empty(tmp_path)


def manifest_is_empty(folder: Path) -> bool:
    return len((folder / "m.csv").read_text().splitlines()) == 1


def test_a_whole_series_wins_over_parts(tmp_path: Path) -> None:
    write_two(tmp_path / "in" / "study")
    write_series(tmp_path / "in" / "study" / "whole", head_like(44), stacked(44, 3.0), StudyInstanceUID="1.2.3")
    assert index(tmp_path / "in") == 3
    assert manifest(tmp_path)["path"].tolist() == ["in/study/whole"]
    assert rejects(tmp_path) == {"in/study": "NOT_CHOSEN"}


def test_a_shift_between_parts_is_no_tilt(tmp_path: Path) -> None:
    hu, places = head_like(32), stacked(32, 4.0)
    uids = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    write_series(tmp_path / "in" / "base", hu[:14], places[:14] + np.array([25.0, 0, 0]), **uids)
    write_series(tmp_path / "in" / "vertex", hu[14:], places[14:], **uids)
    (scan,), _ = find_scans([tmp_path / "in"])
    assert (scan.facts["n_slices"], scan.facts["gantry_tilt_deg"]) == (32, 0)
    assert scan.load().origins_ras_mm[:, 0].tolist() == [65.0] * 14 + [90.0] * 18


def test_an_unknown_tube_voltage_is_no_obstacle() -> None:
    """Headers without KVP, as anonymized archives have them: two NaN are alike."""
    (stack,) = join_parts([base(kvp=float("nan")), vertex(kvp=float("nan"))]).stacks
    assert heights(stack) == [*BASE, *VERTEX]
