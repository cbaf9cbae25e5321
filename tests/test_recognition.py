"""Heads are recognized whatever is wrong with them and however they were scanned; other parts of the body aren't heads.

Figures of the cases here, as brain in a skull in mL and mm, of which 200 mL over 35 mm are needed: heads of adults 730
to 1650 over 60 and more, parts of heads 750 over 56, heads of 0.6 times an adult's size 290 over 50; other bodies 0,
sinuses and temporal bones of a real head 200 to 240 over 20.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_bodies import BODIES, chest, head, neck, on_top, pelvis
from synthetic_heads import Coordinates, between, phantom, posed, reformatted, repainted, scaled
from synthetic_series import SKULL_GAP_MM, head_like

from fmct.data.geometry import SliceStack
from fmct.data.look import looked_at
from fmct.data.phantom.findings import FINDINGS
from fmct.data.phantom.head import draw_head
from fmct.data.recognition import LEAST_BRAIN_ML, LEAST_BRAIN_MM, enclosed_brain, not_a_head
from fmct.data.series import find_scans


@pytest.fixture(scope="module")
def plain() -> SliceStack:
    return phantom()


def assert_head(stack: SliceStack) -> None:
    assert not_a_head(looked_at(stack)) is None


def assert_no_head(stack: SliceStack) -> str:
    reason = not_a_head(looked_at(stack))
    assert reason is not None
    assert "--skip-rules NOT_A_HEAD" in reason
    return reason


@pytest.mark.parametrize(
    "settings",
    [
        {"scanner": "scanner_b"},
        {"scanner": "scanner_c"},
        {"pixel_mm": 0.5, "slice_mm": 5.0},
        {"pixel_mm": 1.0, "slice_mm": 0.6},
        {"slice_mm": 10.0},
        {"pixel_mm": 6.0, "slice_mm": 5.0},
        {"pixel_mm": 1.5, "slice_mm": 4.5},
        {"parameters": posed(pitch_deg=30.0)},
        {"parameters": posed(pitch_deg=-25.0)},
        {"parameters": posed(yaw_deg=40.0, roll_deg=20.0)},
        {"parameters": posed(neck_mm=140.0)},
        *({"parameters": draw_head(np.random.default_rng(seed))} for seed in range(3)),
        *({"findings": (name,)} for name in ("IPH", "SDH", "OldInfarct", "Calcification")),
        {"findings": ("IPH", "SDH", "MidlineShift")},
    ],
    ids=str,
)
def test_phantoms_are_heads(settings: dict) -> None:
    assert set(settings.get("findings", ())) <= set(FINDINGS)
    stack = phantom(**settings)
    assert_head(stack)
    assert enclosed_brain(looked_at(stack)).volume_ml > 4 * LEAST_BRAIN_ML


@pytest.mark.parametrize("factor", [0.6, 0.7, 1.1])
@pytest.mark.parametrize("pixel_mm", [1.0, 6.0])
def test_heads_of_children_are_heads(factor: float, pixel_mm: float) -> None:
    assert_head(scaled(phantom(pixel_mm=pixel_mm), factor))


def test_a_newborn_with_thin_bone_and_open_sutures_is_a_head(plain: SliceStack) -> None:
    def newborn(hu: np.ndarray, at: Coordinates) -> np.ndarray:
        x, y, z = at
        sutures = ((np.abs(x) < 6) | (np.abs(y - 25 + 0.2 * z) < 6) | (np.abs(y + 60 - 0.3 * z) < 5)) & (z > 0)
        thin = np.where(hu > 250, 0.35 * hu, hu)
        return np.where(sutures & (thin > 110), 40, thin)

    assert_head(scaled(repainted(plain, newborn), 0.65))


def without_bone(where: Callable[[Coordinates], np.ndarray]) -> Callable[[np.ndarray, Coordinates], np.ndarray]:
    return lambda hu, at: np.where(where(at) & (hu > 110), 40, hu)


def inside(at: Coordinates, center: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    return sum((a - c) ** 2 for a, c in zip(at, center, strict=True)) < radius_mm**2


def soft(hu: np.ndarray) -> np.ndarray:
    return (hu > -50) & (hu < 100)


def streaks(hu: np.ndarray, at: Coordinates) -> np.ndarray:
    """A clip on an aneurysm: a bright spot, and lines out of it over 30 mm of height."""
    x, y, z = at
    angle, radius = np.arctan2(y - 20, x - 10), np.hypot(y - 20, x - 10)
    near = np.abs(z) < 15
    fan = 800 * np.sign(np.sin(7 * angle)) * np.exp(-((np.sin(14 * angle) / 0.3) ** 2)) * np.exp(-radius / 80)
    return np.where(near & (radius < 6), 3071, np.where(near, hu + fan, hu))


UNUSUAL: dict[str, Callable[[np.ndarray, Coordinates], np.ndarray]] = {
    "hole of a craniotomy": without_bone(lambda at: (at[0] > 20) & inside(at, (60, -15, 35), 40)),
    "half the vault removed": without_bone(lambda at: (at[0] > 20) & (np.abs(at[1] + 15) < 75) & (at[2] > -30)),
    "forehead removed": without_bone(lambda at: (at[1] > 20) & (at[2] > 5)),
    "fractures": without_bone(lambda at: np.abs(at[1] - 0.5 * at[2]) < 3),
    "large bleed": lambda hu, at: np.where(soft(hu) & inside(at, (30, -10, 25), 35), 75, hu),
    "wide ventricles": lambda hu, at: np.where(soft(hu) & inside(at, (0, -15, 8), 62), 4, hu),
    "enhanced tumor": lambda hu, at: np.where(soft(hu) & inside(at, (35, -20, 30), 30), 130, hu),
    "air in the skull": lambda hu, at: np.where(soft(hu) & (at[1] > 20) & (at[2] > 10), -1000, hu),
    "metal": streaks,
    "vessels with contrast": lambda hu, at: np.where(soft(hu) & (np.hypot(at[0] % 25, at[1] % 25) < 3), 350, hu),
    "off by 20 HU": lambda hu, at: hu + 20,
    "off by -15 HU": lambda hu, at: hu - 15,
    "noise of a sharp kernel": lambda hu, at: hu + np.random.default_rng(0).normal(0, 50, hu.shape),
    "untagged padding": lambda hu, at: np.where(np.hypot(at[0], at[1]) > 105, -3024, hu),
}  # fmt: skip


@pytest.mark.parametrize("paint", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_heads_are_heads(plain: SliceStack, paint: Callable[[np.ndarray, Coordinates], np.ndarray]) -> None:
    assert_head(repainted(plain, paint))


@pytest.mark.parametrize(("low_mm", "high_mm"), [(0, 200), (-200, 45), (-200, 30), (0, 62)])
def test_parts_of_heads_that_show_much_brain_are_heads(plain: SliceStack, low_mm: float, high_mm: float) -> None:
    assert_head(between(plain, low_mm, high_mm))


@pytest.mark.parametrize("axis", [0, 1])
def test_any_direction_of_slices_will_do(plain: SliceStack, axis: int) -> None:
    assert_head(reformatted(plain, axis))
    assert_head(reformatted(on_top(neck(60), head()), axis))
    for name in ("pelvis", "neck", "water_cylinder", "whole_body"):
        assert_no_head(reformatted(BODIES[name](), axis))


@pytest.mark.parametrize("name", BODIES)
def test_other_bodies_are_no_heads(name: str) -> None:
    assert_no_head(BODIES[name]())


def test_a_head_with_neck_and_chest_is_a_head_but_a_whole_body_is_mostly_body() -> None:
    assert_head(on_top(chest(), neck(60), head()))
    reason = assert_no_head(on_top(pelvis(), chest(), chest(), neck(60), head()))
    assert "mostly body" in reason
    assert re.search(r"of 11[12]\d mm", reason)
    assert "mostly body" in assert_no_head(BODIES["whole_body"]())


@pytest.mark.parametrize(("slices", "gap_mm"), [(20, SKULL_GAP_MM), (20, 5.0), (12, 8.0), (24, 6.0), (12, 12.0)])
def test_coarse_synthetic_skulls_are_heads_and_measured_right(slices: int, gap_mm: float) -> None:
    hu = head_like(slices)
    origins = np.arange(slices)[:, None] * np.array([0, 0, gap_mm])
    stack = SliceStack(hu, origins, np.array([0, 6.0, 0]), np.array([4.5, 0, 0]))
    assert not_a_head(stack) is None
    assert_head(stack)
    brain = enclosed_brain(stack)
    truth_ml = np.count_nonzero(np.abs(hu - 40) < 20) * 6 * 4.5 * gap_mm / 1000
    assert 0.8 * truth_ml < brain.volume_ml <= 1.02 * truth_ml
    assert brain.center_ras_mm == pytest.approx([19.5 * 4.5, 15.5 * 6, (slices - 1) / 2 * gap_mm], abs=5)
    assert brain.scan_mm == pytest.approx(slices * gap_mm)
    bare = replace(stack, hu=np.where(hu > 500, hu - 1900, hu).astype(np.int16))
    assert "0 mL" in assert_no_head(bare)


def test_where_the_brain_is_does_not_depend_on_the_direction_of_slices(plain: SliceStack) -> None:
    centers = [enclosed_brain(stack).center_ras_mm for stack in (plain, reformatted(plain, 0), reformatted(plain, 1))]
    assert np.ptp(centers, axis=0).max() < 20
    leaning = enclosed_brain(phantom(scanner="scanner_b")).center_ras_mm
    assert leaning == pytest.approx(centers[0], abs=15)


REAL = {
    "dicom/ge_head_tilt": 1000,
    "dicom/headneck_pycerr": 700,
    "nifti/ge_upper14_sheared.nii.gz": 800,
    "dicom/philips_phantom_study/S2010": 0,
    "dicom/philips_phantom_tilt_neg18": 0,
}


@pytest.mark.parametrize(("name", "least_ml"), REAL.items())
def test_real_heads_are_heads_and_a_hollow_plastic_one_is_not(shared_scans: Path, name: str, least_ml: float) -> None:
    (found,), _ = find_scans([shared_scans / name])
    stack = found.load()
    if not least_ml:
        assert_no_head(stack)
        return
    assert_head(stack)
    assert enclosed_brain(looked_at(stack)).volume_ml > least_ml


def test_parts_of_a_real_head_and_neck_are_no_heads(shared_scans: Path) -> None:
    (found,), _ = find_scans([shared_scans / "dicom/headneck_pycerr"])
    stack = found.load()
    for low_mm, high_mm in [(-267, -150), (-267, -125), (-267, -190), (-150, -85), (-150, -70), (-115, -70)]:
        part = between(stack, low_mm, high_mm)
        reason = assert_no_head(part)
        assert "mL of brain in a skull" in reason
        assert enclosed_brain(looked_at(part)).height_mm < 0.7 * LEAST_BRAIN_MM
