"""However a head is stored, it is the same head: order, names, axes and directions of storage never show.

Stored in another way, a stack is compared where storage can't matter: resampled onto one grid, by its own geometry.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_series import head_like, write_series

from fmct.data.geometry import SliceStack
from fmct.data.grid import Grid
from fmct.data.resampling import resample
from fmct.data.series import find_scans

ROWS, COLUMNS, SLICES = 24, 30, 12
PIXEL_MM = (6.0, 5.0)
SETTINGS = settings(max_examples=25, deadline=None)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for one example: hypothesis runs many within one test."""
    path = Path(tempfile.mkdtemp())
    try:
        yield path
    finally:
        shutil.rmtree(path)


def lopsided(seed: int = 0) -> np.ndarray:
    """A head (K, J, I) that no turning or mirroring takes into itself."""
    hu = head_like(SLICES, ROWS, COLUMNS, seed=seed)
    hu[:3, 4:9, 5:12] = 300
    hu[8:, 14:20, 20:24] = 800
    return hu


def heights(uneven: bool) -> np.ndarray:
    """Positions (K,) along the body, evenly or with a change of thickness."""
    return np.cumsum([0, *([8.0] * 11 if not uneven else [6.0] * 6 + [11.0] * 5)])


def geometry(tilt_deg: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First position, direction along a row and direction down a column, all LPS, of slices tilted about x."""
    angle = np.radians(tilt_deg)
    return np.array([-70.0, -75.0, 30.0]), np.array([1.0, 0, 0]), np.array([0, np.cos(angle), -np.sin(angle)])


def write_dicom(
    path: Path, hu: np.ndarray, z_mm: np.ndarray, tilt_deg: float, turn: int, mirror: bool, **more: Any
) -> None:
    """Write a series whose pixels are turned by quarters and mirrored within the plane, with the vectors to match."""
    origin, across, down = geometry(tilt_deg)
    row_mm, column_mm = PIXEL_MM
    steps = np.array([down * row_mm, across * column_mm])  # of rows and columns
    corner = origin.copy()
    for _ in range(turn):  # np.rot90: the last column becomes the first row
        corner = corner + steps[1] * (hu.shape[2] - 1)
        steps = np.array([-steps[1], steps[0]])
        hu = np.rot90(hu, axes=(1, 2))
    if mirror:
        corner = corner + steps[1] * (hu.shape[2] - 1)
        steps[1] *= -1
        hu = hu[:, :, ::-1]
    lengths = np.linalg.norm(steps, axis=1)
    positions = corner + z_mm[:, None] * np.array([0, 0, 1.0])
    orientation = [float(x) for x in (steps[::-1] / lengths[::-1, None]).ravel()]
    order = more.pop("order", range(len(hu)))
    write_series(
        path, hu[list(order)], positions[list(order)], orientation, (float(lengths[0]), float(lengths[1])), **more
    )


def on_one_grid(stack: SliceStack) -> np.ndarray:
    """Resample onto a grid that doesn't depend on the stack."""
    grid = Grid.covering(np.array([-90.0, -90, 10]), np.array([90.0, 90, 150]), 5.0)
    return resample(stack, grid, hu_range=(-1024, 3071)).astype(int)


def reference(uneven: bool, tilt_deg: float) -> np.ndarray:
    """The head on the grid, from a stack that no file and no reader has touched."""
    origin, across, down = geometry(tilt_deg)
    to_ras = np.array([-1.0, -1.0, 1.0])
    origins = (origin + heights(uneven)[:, None] * np.array([0, 0, 1.0])) * to_ras
    return on_one_grid(SliceStack(lopsided(), origins, down * PIXEL_MM[0] * to_ras, across * PIXEL_MM[1] * to_ras))


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether two heads on the grid are alike but for rounding; on an edge that may tip a voxel over."""
    return bool((np.abs(one - other) > 2).mean() < 1e-3)


def test_the_head_has_no_symmetry() -> None:
    straight = reference(False, 0)
    for axes in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        assert not same(straight, np.flip(straight, axes))
    assert not same(straight, reference(True, 0))
    assert not same(straight, reference(False, 12))
    assert (straight > 700).sum() > 20


@given(
    turn=st.integers(0, 3),
    mirror=st.booleans(),
    uneven=st.booleans(),
    tilt=st.sampled_from([0.0, 12.0, -18.5]),
    order=st.permutations(range(SLICES)),
    numbers=st.permutations(range(SLICES)),
    names=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20).filter(
            lambda name: not name.startswith(".") and len(name.encode()) < 200
        ),
        min_size=SLICES,
        max_size=SLICES,
        unique_by=lambda name: name.casefold(),
    ).filter(lambda names: not any(name.lower().endswith((".nii", ".nii.gz")) for name in names)),
)
@SETTINGS
def test_dicom_slices_in_any_order_direction_and_naming(
    turn: int, mirror: bool, uneven: bool, tilt: float, order: list[int], numbers: list[int], names: list[str]
) -> None:
    with folder() as path:
        write_dicom(
            path, lopsided(), heights(uneven), tilt, turn, mirror, order=order, names=names, InstanceNumber=numbers
        )
        (scan,), rejected = find_scans([path])
        assert not rejected
        assert scan.facts["gantry_tilt_deg"] == pytest.approx(abs(tilt), abs=0.02)
        assert same(on_one_grid(scan.load()), reference(uneven, tilt))


def test_every_way_of_turning_a_slice() -> None:
    expected = reference(True, -18.5)
    for turn, mirror in product(range(4), (False, True)):
        with folder() as path:
            write_dicom(path, lopsided(), heights(True), -18.5, turn, mirror)
            (scan,), _ = find_scans([path])
            assert same(on_one_grid(scan.load()), expected), (turn, mirror)
            assert (scan.facts["spacing_y_mm"], scan.facts["spacing_x_mm"]) == PIXEL_MM
            assert scan.extent_mm[:2] == (COLUMNS * PIXEL_MM[1], ROWS * PIXEL_MM[0])


def nifti_of(hu: np.ndarray, tilt_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (I, J, K) and affine of an even stack; shear where the gantry is tilted."""
    origin, across, down = geometry(tilt_deg)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([across * PIXEL_MM[1], down * PIXEL_MM[0], [0, 0, 8.0]], axis=1)
    affine[:3, 3] = origin
    return hu.transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


@given(
    axes=st.sampled_from(list(permutations(range(3)))),
    flips=st.tuples(*[st.booleans()] * 3),
    tilt=st.sampled_from([0.0, 12.0, -18.5]),
    suffix=st.sampled_from([".nii", ".nii.gz", ".NII.gz"]),
)
@settings(max_examples=60, deadline=None)
def test_nifti_axes_in_any_order_and_direction(
    axes: tuple[int, ...], flips: tuple[bool, ...], tilt: float, suffix: str
) -> None:
    values, affine = nifti_of(lopsided(), tilt)
    values, affine = values.transpose(axes), affine[:, [*axes, 3]]
    for axis, flip in enumerate(flips):
        if flip:
            values = np.flip(values, axis)
            affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
            affine[:3, axis] *= -1
    with folder() as path:
        nib.save(nib.Nifti1Image(np.ascontiguousarray(values), affine), path / "x.nii")
        stored = path / f"x{suffix}"
        if suffix.lower() == ".nii":
            (path / "x.nii").rename(stored)
        else:
            nib.save(nib.load(path / "x.nii"), path / "x.nii.gz")
            (path / "x.nii").unlink()
            (path / "x.nii.gz").rename(stored)
        (scan,), rejected = find_scans([path])
        assert not rejected
        stack = scan.load()
    plain = find_scans_of_plain(tilt)
    assert np.array_equal(stack.hu, plain.hu)  # one canonical stack, voxel for voxel
    assert stack.origins_ras_mm == pytest.approx(plain.origins_ras_mm, abs=1e-3)
    assert same(on_one_grid(stack), reference(False, tilt))


def find_scans_of_plain(tilt: float) -> SliceStack:
    """The stack of the plain file."""
    values, affine = nifti_of(lopsided(), tilt)
    with folder() as path:
        nib.save(nib.Nifti1Image(np.ascontiguousarray(values), affine), path / "x.nii.gz")
        (scan,), _ = find_scans([path])
        return scan.load()


@pytest.mark.parametrize("tilt", [0.0, -18.5])
def test_dicom_and_nifti_of_one_head_are_one(tilt: float) -> None:
    with folder() as path:
        write_dicom(path / "dicom", lopsided(), heights(False), tilt, 1, True)
        (scan,), _ = find_scans([path / "dicom"])
        assert same(on_one_grid(scan.load()), on_one_grid(find_scans_of_plain(tilt)))
