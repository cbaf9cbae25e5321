"""The head crop against what lies around heads in scanners: the head is kept whole, and nothing of the rest."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_bodies import BODIES
from synthetic_hazards import HAZARDS, STEP_MM, Scene, scanned, scene
from synthetic_heads import between, repainted

from fmct.data.geometry import SliceStack
from fmct.data.preprocessing import IsotropicSettings, preprocess_stack
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.volumes import Volume

SETTINGS = IsotropicSettings(shape_voxels=None)
CLOSE_MM = 3.0
"""What lies closer to the skin than two voxels can't be told from it."""
MOST_KEPT = dict.fromkeys(HAZARDS, 0.005) | {"mask": 0.06, "tubes": 0.015}
"""A net on the skin, and a line that runs over an ear, are kept where they touch."""


@pytest.fixture(scope="module")
def alone() -> Scene:
    return scene()


def kept(volume: Volume, alone: Scene) -> np.ndarray:
    """(Z, Y, X) on the scene's grid: what of it isn't air in the volume."""
    picks = [
        np.rint((axis.ravel() - volume.affine[n, 3]) / volume.spacing_mm).astype(int)
        for n, axis in ((2, alone.z), (1, alone.y), (0, alone.x))
    ]
    picks = [np.clip(pick, -1, count) + 1 for pick, count in zip(picks, volume.voxels.shape, strict=True)]
    return np.pad(volume.voxels > -1024, 1)[np.ix_(*picks)]


def cut_mm(alone: Scene, top_mm: float = 1e3) -> float:
    """Height of the cut, given the highest slice."""
    heights = np.broadcast_to(alone.z, alone.hu.shape)[alone.head]
    return max(min(heights.max(), top_mm) - SETTINGS.head_height_mm, float(alone.z.min()))


@pytest.mark.parametrize("slice_voxels", [1, 3])
@pytest.mark.parametrize("name", HAZARDS)
def test_the_head_is_kept_and_hazards_are_not(alone: Scene, name: str, slice_voxels: int) -> None:
    stack, hazard = scanned(alone, HAZARDS[name](alone), slice_voxels)
    volume = preprocess_stack(stack, SETTINGS)
    seen = kept(volume, alone)
    above = np.broadcast_to(alone.z > cut_mm(alone) + 4, alone.hu.shape)
    assert seen[alone.head & above].mean() >= 0.995
    far = hazard & (alone.off_skin_mm > CLOSE_MM)
    assert far.sum() * STEP_MM**3 > 10_000
    assert seen[far].mean() <= MOST_KEPT[name]
    assert seen[alone.off_skin_mm > 12].mean() < 1e-4  # nor is anything else that far away


@pytest.mark.parametrize(("low_mm", "high_mm"), [(-200, 60), (-20, 200), (-30, 70)], ids=["vertex", "base", "both"])
def test_scans_that_miss_the_vertex_or_stop_at_the_skull_base(alone: Scene, low_mm: float, high_mm: float) -> None:
    stack, hazard = scanned(alone, HAZARDS["couch"](alone))
    part = between(stack, low_mm, high_mm)
    volume = preprocess_stack(part, SETTINGS)
    seen = kept(volume, alone)
    inside = np.broadcast_to((alone.z > max(low_mm, cut_mm(alone, high_mm)) + 4) & (alone.z < high_mm - 2), seen.shape)
    assert seen[alone.head & inside].mean() >= 0.995
    assert seen[hazard].mean() <= 0.001


def test_air_around_the_head_is_of_one_value(alone: Scene) -> None:
    """Noise in air costs bytes and says nothing: what is more than two voxels off the skin is exactly `hu_min`."""
    stack, _ = scanned(alone, [], noise_hu=40.0)
    seen = kept(preprocess_stack(stack, SETTINGS), alone)
    assert seen[alone.off_skin_mm > 2 * 1.5 + STEP_MM].mean() < 1e-3
    assert seen[alone.head & (alone.z > cut_mm(alone) + 4)].mean() > 0.995


def test_an_ear_under_a_wall_stays(alone: Scene) -> None:
    stack, _ = scanned(alone, HAZARDS["plates"](alone))
    seen = kept(preprocess_stack(stack, SETTINGS), alone)
    ears = alone.head & (np.abs(alone.x) > 74) & (np.abs(alone.y + 31) < 15) & (np.abs(alone.z + 38) < 28)
    assert ears.sum() * STEP_MM**3 > 4_000
    assert seen[ears].mean() > 0.9


def made_of(stack: SliceStack, settings: IsotropicSettings) -> Volume | ScanError:
    """The volume of anything at all, or why there is none."""
    skip = frozenset({RejectCode.NOT_A_HEAD, RejectCode.IMPLAUSIBLE_HU})
    try:
        return preprocess_stack(stack, settings, "body", skip)
    except ScanError as error:
        return error


@pytest.mark.parametrize("name", BODIES)
def test_with_the_rule_off_the_largest_body_is_kept_and_nothing_breaks(name: str) -> None:
    made = made_of(BODIES[name](), IsotropicSettings(spacing_mm=3.0, shape_voxels=72))
    if name == "empty_table":
        assert isinstance(made, ScanError)
        assert "no piece of tissue of 100 mL" in made.detail
        return
    assert isinstance(made, Volume)
    assert np.count_nonzero(made.voxels > -300) * 27 / 1000 > 400
    brain = np.count_nonzero(np.abs(made.voxels - 32) < 12) * 27 / 1000
    assert (brain > 1200) == (name == "whole_body")  # of a whole body, it is the head


@pytest.mark.parametrize("seed", range(6))
def test_noise_and_rubble_never_break_the_crop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(8, 60, 3))
    hu = rng.choice(np.array([-1000, -400, 40, 700], np.int16), shape)
    hu = hu.repeat(rng.integers(1, 4), axis=1).repeat(rng.integers(1, 5), axis=2)
    tilt = rng.uniform(-0.4, 0.4)
    origins = np.arange(len(hu))[:, None] * np.array([0.0, 0.0, rng.uniform(0.6, 8)])
    stack = SliceStack(hu, origins, np.array([0, np.cos(tilt), np.sin(tilt)]), np.array([1.0, 0, 0]))
    made = made_of(stack, IsotropicSettings(spacing_mm=4.0, shape_voxels=32))
    if isinstance(made, ScanError):
        assert made.code is RejectCode.NOT_A_HEAD
    else:
        assert made.voxels.shape == (32, 32, 32)


def test_head_and_arms_stay_apart_in_a_tilted_scan(alone: Scene) -> None:
    """The same voxels, sheared as a gantry that is tilted by 12 degrees shows them."""
    stack, _ = scanned(alone, HAZARDS["arms_beside"](alone), 3)
    shear = np.tan(np.radians(12.0))
    rows = stack.row_step_ras_mm + np.array([0, 0, shear * STEP_MM])
    leaning = SliceStack(stack.hu, stack.origins_ras_mm, rows, stack.column_step_ras_mm)
    volume = preprocess_stack(leaning, SETTINGS)
    flesh = np.count_nonzero(volume.voxels > -300) * 1.5**3
    plain = preprocess_stack(repainted(leaning, lambda hu, at: np.where(np.abs(at[0]) > 92, -1000, hu)), SETTINGS)
    assert flesh == pytest.approx(np.count_nonzero(plain.voxels > -300) * 1.5**3, rel=0.01)
