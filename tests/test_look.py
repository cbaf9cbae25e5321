"""A first look at a scan: which slices it takes, that they are at their true places, and that it reads no others."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from synthetic_series import SKULL_GAP_MM, SKULL_PIXEL_MM, head_like, stacked, tilted, write_series

from fmct.data import look
from fmct.data import scan as scan_module
from fmct.data.dicom import SliceHeader, read_slice_hu
from fmct.data.look import PIXEL_RULES, look_at_stack, looked_at, number_of_looks, spread_slices
from fmct.data.nifti import load_nifti
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.scan import Scan
from fmct.data.series import find_scans

AFFINES = {
    "axial": np.array([[4.5, 0, 0, -80], [0, 6, 0, -90], [0, 0, 1.5, 7], [0, 0, 0, 1.0]]),
    "turned": np.array([[0, 0, 4.5, -80], [0, -6, 0, 90], [-1.5, 0, 0, 50], [0, 0, 0, 1.0]]),
    "sheared": np.array([[-4.5, 0, 0, 80], [0, 6, 0, -90], [0, 2, 1.5, 7], [0, 0, 0, 1.0]]),
}


def only_scan(path: Path) -> Scan:
    scans, rejects = find_scans([path])
    assert not rejects
    (scan,) = scans
    return scan


@pytest.mark.parametrize(
    ("count", "gap_mm", "fewest", "most"),
    [(12, 5, 8, 8), (28, 5, 10, 13), (300, 0.6, 13, 17), (99, 1, 8, 9), (400, 3, 24, 24), (8, 9, 8, 8), (5, 9, 5, 5)],
)  # fmt: skip
def test_looks_are_even_in_millimeters(count: int, gap_mm: float, fewest: int, most: int) -> None:
    places = 3.0 + gap_mm * np.arange(count)
    chosen = spread_slices(places)
    assert fewest <= len(chosen) <= most
    gaps = np.diff(places[chosen])
    assert gaps.min() > 0
    if count > 12:
        assert gaps.max() - gaps.min() <= 1.01 * gap_mm
        assert abs((places[chosen[0]] - places[0]) - (places[-1] - places[chosen[-1]])) <= 1.01 * gap_mm
    assert np.array_equal(spread_slices(-places), chosen)


def test_looks_follow_millimeters_where_gaps_differ() -> None:
    places = np.concatenate([np.arange(60) * 1.0, 60 + np.arange(12) * 5.0])
    chosen = places[spread_slices(places)]
    assert np.diff(chosen).max() < 1.6 * np.diff(chosen).min()


def test_only_chosen_files_of_a_series_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hu = head_like(40)
    write_series(tmp_path, hu, stacked(40, 3.0), tilted(15), SKULL_PIXEL_MM)
    scan = only_scan(tmp_path)
    read: list[Path] = []
    whole = scan.load()

    def recorded(header: SliceHeader, out: np.ndarray | None) -> np.ndarray:
        read.append(header.path)
        return read_slice_hu(header, out)

    monkeypatch.setattr(scan_module, "read_slice_hu", recorded)
    stack = look_at_stack(scan)
    assert len(read) == len(stack.hu) < 14
    expected = looked_at(whole)
    assert np.array_equal(stack.hu, expected.hu)
    np.testing.assert_allclose(stack.origins_ras_mm, expected.origins_ras_mm)
    np.testing.assert_allclose(stack.row_step_ras_mm, whole.row_step_ras_mm)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("trailing", [(), (1,)])
def test_looks_at_nifti_are_true_slices(
    tmp_path: Path, affine: np.ndarray, suffix: str, trailing: tuple[int, ...]
) -> None:
    values = np.random.default_rng(0).integers(-1000, 1000, (97, 40, 96, *trailing)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, affine), tmp_path / f"scan{suffix}")
    scan = only_scan(tmp_path)
    stack, whole = look_at_stack(scan), scan.load()
    assert 10 <= len(stack.hu) <= 14
    assert np.ptp(stack.gaps_mm) < 1e-6
    for plane, origin in zip(stack.hu, stack.origins_ras_mm, strict=True):
        distances = np.linalg.norm(whole.origins_ras_mm - origin, axis=1)
        assert distances.min() < 1e-5
        assert np.array_equal(plane, whole.hu[distances.argmin()])
    np.testing.assert_allclose(stack.row_step_ras_mm, whole.row_step_ras_mm)
    np.testing.assert_allclose(stack.column_step_ras_mm, whole.column_step_ras_mm)
    ends = stack.positions_mm[0] - whole.positions_mm[0], whole.positions_mm[-1] - stack.positions_mm[-1]
    assert max(ends) < 12


@pytest.mark.parametrize("count", [8, 9, 11, 15, 16, 23, 200])
def test_a_look_at_a_short_nifti_takes_at_least_eight_slices(tmp_path: Path, count: int) -> None:
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(np.zeros((16, 16, count), np.int16), np.diag([4, 4, 5.0, 1])), path)
    assert min(count, 8) <= len(look.look_at_nifti(path).hu) <= 25


def test_a_look_at_an_uncompressed_nifti_is_scaled_as_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    values = np.random.default_rng(0).normal(0, 100, (64, 64, 160)).astype(np.float32)
    image = nib.Nifti1Image(values, np.diag([3, 3, 1.0, 1]))
    image.header.set_slope_inter(1, -20)
    nib.save(image, path)
    stack, whole = look.look_at_nifti(path), load_nifti(path)
    places = [int(np.abs(whole.positions_mm - place).argmin()) for place in stack.positions_mm]
    assert np.array_equal(stack.hu, whole.hu[places])
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(ScanError) as raised:
        look.look_at_nifti(path)
    assert raised.value.code is RejectCode.UNREADABLE
    assert raised.value.where == str(path)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    values = np.zeros((16, 16, 40), np.float32)
    values[3] = np.nan
    nib.save(nib.Nifti1Image(values, np.diag([4, 4, 5.0, 1])), path)
    with pytest.raises(ScanError) as raised:
        look.look_at_nifti(path)
    assert raised.value.code is RejectCode.IMPLAUSIBLE_HU


def test_a_damaged_slice_is_named(tmp_path: Path) -> None:
    paths = write_series(tmp_path, head_like(20), stacked(20, SKULL_GAP_MM), pixel_mm=SKULL_PIXEL_MM)
    scan = only_scan(tmp_path)
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) - 500])
    with pytest.raises(ScanError) as raised:
        look_at_stack(scan)
    assert raised.value.code is RejectCode.UNREADABLE
    assert Path(str(raised.value.where)) in paths


def test_rules_ask_for_hu_first_then_for_a_head(tmp_path: Path) -> None:
    assert [code for code, _ in PIXEL_RULES] == [RejectCode.IMPLAUSIBLE_HU, RejectCode.NOT_A_HEAD]
    assert number_of_looks(1e6) == 24
    hu = head_like(20)
    brain = np.where(hu > 500, -1000, hu) + np.random.default_rng(1).normal(0, 9, hu.shape).astype(np.int16)
    for name, values in {"head": hu, "raw": hu + 1024, "brain alone": brain}.items():
        write_series(tmp_path / name, values, stacked(20, SKULL_GAP_MM), pixel_mm=SKULL_PIXEL_MM)
    found = {}
    for name in ("head", "raw", "brain alone"):
        stack = look_at_stack(only_scan(tmp_path / name))
        found[name] = [rule(stack) is None for _, rule in PIXEL_RULES]
    assert found["head"] == [True, True]
    assert found["raw"][0] is False
    assert found["brain alone"] == [True, False]
