"""What preprocessing refuses and what may be switched off, and the head of plastic, in two scans, as the hard case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_bodies import chest, head, neck, on_top
from synthetic_heads import head_on_a_table

from fmct.data.geometry import SliceStack
from fmct.data.grid import Grid
from fmct.data.preprocessing import IsotropicSettings, preprocess_stack
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.resampling import resample
from fmct.data.series import find_scans

WHOLE = IsotropicSettings(head_crop=False, spacing_mm=1.0)


def load(scans: Path, name: str) -> SliceStack:
    (found,), _ = find_scans([scans / name])
    return found.load()


@pytest.fixture(scope="module")
def plastic_heads(shared_scans: Path) -> list[SliceStack]:
    """The same head of plastic, which didn't move, with a level gantry and with a tilted one."""
    return [
        load(shared_scans, f"dicom/{name}") for name in ("philips_phantom_study/S2010", "philips_phantom_tilt_neg18")
    ]


def common_field(stacks: list[SliceStack]) -> tuple[Grid, np.ndarray]:
    """A grid of 2 mm and which of its voxels all stacks show."""
    bounds = [stack.bounds_ras_mm() for stack in stacks]
    grid = Grid.covering(np.max([low for low, _ in bounds], axis=0), np.min([high for _, high in bounds], axis=0), 2.0)
    z, y, x = np.meshgrid(*(grid.centers_mm(axis) for axis in (2, 1, 0)), indexing="ij")
    common = np.ones(grid.shape_zyx, bool)
    for stack in stacks:
        depth = np.stack([x, y, z], axis=-1) @ stack.normal_ras
        common &= (depth >= stack.positions_mm[0]) & (depth <= stack.positions_mm[-1])
    return grid, common


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def test_tilted_and_untilted_phantom_coincide(plastic_heads: list[SliceStack]) -> None:
    grid, common = common_field(plastic_heads)
    one, other = ((resample(stack, grid) > 300) & common for stack in plastic_heads)
    assert dice(one, other) >= 0.75


def test_the_rule_on_heads_refuses_the_phantom_and_can_be_switched_off(plastic_heads: list[SliceStack]) -> None:
    """The head of plastic is hollow: nobody's brain. With the rule switched off it is cropped like any head."""
    grid, common = common_field(plastic_heads)
    settings = IsotropicSettings(spacing_mm=2.0, shape_voxels=None)
    masks = []
    for stack in plastic_heads:
        for skip in (frozenset(), frozenset({RejectCode.IMPLAUSIBLE_HU})):
            with pytest.raises(ScanError) as raised:
                preprocess_stack(stack, settings, "phantom", skip)
            assert raised.value.code is RejectCode.NOT_A_HEAD
            assert "0 mL of brain in a skull" in raised.value.detail
            assert "--skip-rules NOT_A_HEAD" in raised.value.detail
        volume = preprocess_stack(stack, settings, "phantom", frozenset({RejectCode.NOT_A_HEAD}))
        picks = [np.rint((grid.centers_mm(a) - volume.affine[a, 3]) / 2).astype(int) for a in (2, 1, 0)]
        picks = [np.clip(pick, -1, count) + 1 for pick, count in zip(picks, volume.voxels.shape, strict=True)]
        masks.append((np.pad(volume.voxels, 1, constant_values=-1024)[np.ix_(*picks)] > 300) & common)
        whole = (resample(stack, grid) > 300) & common
        assert masks[-1].sum() > 0.9 * whole.sum()  # nothing of the head was cut off
    assert dice(*masks) >= 0.7  # nearest voxels of two grids, half a voxel off each


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ct_pitch_uint8_notHU", "no air"),
        ("vtk_headsq_rawvalues", "no air"),
        ("ct_template_with_skull_2mm", "no air"),
    ],
)
def test_what_is_not_hu_is_refused(shared_scans: Path, name: str, reason: str) -> None:
    with pytest.raises(ScanError) as raised:
        preprocess_stack(load(shared_scans, f"nifti/{name}.nii.gz"), IsotropicSettings(), name)
    assert raised.value.code is RejectCode.IMPLAUSIBLE_HU
    assert reason in raised.value.detail
    assert raised.value.where == name


def test_values_that_are_no_hu_pass_where_the_rule_is_off() -> None:
    stack, _ = head_on_a_table()
    raw = replace(stack, hu=stack.hu + 1024)
    with pytest.raises(ScanError) as raised:
        preprocess_stack(raw, WHOLE)
    assert raised.value.code is RejectCode.IMPLAUSIBLE_HU
    volume = preprocess_stack(raw, WHOLE, skip=frozenset({RejectCode.IMPLAUSIBLE_HU, RejectCode.NOT_A_HEAD}))
    assert np.median(volume.voxels) == pytest.approx(24, abs=2)


def test_nothing_like_a_head_is_refused() -> None:
    stack, _ = head_on_a_table()
    crumbs = np.full(stack.hu.shape, -1000, np.int16)
    crumbs[2::5, 3::9, 3::9] = crumbs[3::5, 3::9, 3::9] = 60
    crumbs[:, :, 4::9] = np.where(crumbs[:, :, 3::9] == 60, 60, crumbs[:, :, 4::9])
    crumbs += np.random.default_rng(0).integers(-9, 10, crumbs.shape).astype(np.int16)
    loose = replace(stack, hu=crumbs)
    settings = IsotropicSettings(spacing_mm=4.0, shape_voxels=48)
    details = []
    for skip in (frozenset(), frozenset({RejectCode.NOT_A_HEAD})):
        with pytest.raises(ScanError) as raised:
            preprocess_stack(loose, settings, "crumbs", skip)
        assert raised.value.code is RejectCode.NOT_A_HEAD
        assert raised.value.where == "crumbs"
        details.append(raised.value.detail)
    assert "0 mL of brain in a skull" in details[0]
    assert "no piece of tissue of 100 mL to crop on; --no-head-crop" in details[1]


def test_other_bodies_are_refused_with_and_without_a_crop() -> None:
    for settings in (IsotropicSettings(spacing_mm=4.0, shape_voxels=48), WHOLE):
        with pytest.raises(ScanError) as raised:
            preprocess_stack(chest(), settings)
        assert raised.value.code is RejectCode.NOT_A_HEAD


def test_arms_above_the_head_are_not_taken_for_it() -> None:
    body = on_top(neck(60), head())
    room = replace(body, hu=np.full_like(body.hu[:30], -1000), origins_ras_mm=body.origins_ras_mm[:30])
    above = on_top(body, room)  # 150 mm above the vertex
    hu = above.hu.copy()
    _, rows, columns = hu.shape
    x, y = np.arange(columns)[None] * 2.0 - columns, np.arange(rows)[:, None] * 2.0 - rows
    for side in (-1, 1):
        arm, bone = (np.hypot(x - side * 130, y) < radius for radius in (40, 14))
        hu[:, arm] = np.where(hu[:, arm] < -500, 55, hu[:, arm])
        hu[:, bone] = 800
    settings = IsotropicSettings(spacing_mm=3.0, shape_voxels=72)
    armed, plain = (preprocess_stack(s, settings) for s in (replace(above, hu=hu), body))
    brain = [np.count_nonzero(np.abs(v.voxels - 32) < 12) * 27 / 1000 for v in (armed, plain)]
    assert brain[1] > 1200
    assert brain[0] == pytest.approx(brain[1], rel=0.1)
