"""Volumes against the true geometry of real scans, and what is cut from them and what isn't."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_heads import head_on_a_table

from fmct.data.geometry import SliceStack
from fmct.data.grid import Grid
from fmct.data.preprocessing import IsotropicSettings, preprocess_stack
from fmct.data.resampling import resample
from fmct.data.series import find_scans
from fmct.data.volumes import Volume

WHOLE = IsotropicSettings(head_crop=False, spacing_mm=1.0)


def facts_of(shared: Path, name: str) -> dict[str, Any]:
    facts = json.loads((shared / "data" / "dicom" / name / "FACTS.json").read_text())
    return next(iter(facts["series"].values())) if "series" in facts else facts


def load(scans: Path, name: str) -> SliceStack:
    found, _ = find_scans([scans / name])
    (scan,) = found
    return scan.load()


def bone_centroid(volume: Volume, where: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """Centroid of bone (RAS mm) and its volume (mL)."""
    bone = volume.voxels > 300 if where is None else (volume.voxels > 300) & where
    index = np.argwhere(bone).mean(axis=0)[::-1]
    return volume.affine[:3, :3] @ index + volume.affine[:3, 3], bone.sum() * volume.spacing_mm**3 / 1000


def value_at(volume: Volume, point_ras: list[float]) -> float:
    """Mean of 3 x 3 x 3 voxels around a point."""
    x, y, z = np.rint((np.array(point_ras) - volume.affine[:3, 3]) / volume.spacing_mm).astype(int)
    return float(volume.voxels[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2].mean())


@pytest.fixture(scope="module")
def ge(shared_scans: Path) -> SliceStack:
    return load(shared_scans, "dicom/ge_head_tilt")


@pytest.fixture(scope="module")
def ge_whole(ge: SliceStack) -> Volume:
    return preprocess_stack(ge, WHOLE)


def test_the_tilted_head_is_where_it_was(ge_whole: Volume, shared: Path) -> None:
    truth = facts_of(shared, "ge_head_tilt")["after_exact_resample_to_1mm"]
    centroid, volume_ml = bone_centroid(ge_whole)
    assert np.abs(centroid * [-1, -1, 1] - truth["bone_centroid_LPS_mm"]).max() < 1.5
    assert volume_ml == pytest.approx(truth["bone_HU>300_volume_mL"], rel=0.04)
    assert (ge_whole.voxels > -300).sum() / 1000 == pytest.approx(truth["not_air_HU>-300_volume_mL"], rel=0.04)
    assert ge_whole.voxels.min() == -1024


@pytest.mark.parametrize(
    "name", ["ge_head_tilt", "philips_phantom_study/S2010", "philips_phantom_tilt_neg18", "headneck_pycerr"]
)
def test_landmarks(shared_scans: Path, shared: Path, name: str) -> None:
    stack = load(shared_scans, f"dicom/{name}")
    points = facts_of(shared, name.split("/")[0])["landmarks"]["points"]
    assert len(points) >= 6
    for point in points:  # only the surroundings of each point are resampled
        grid = Grid.centered(np.array(point["RAS_mm"]), 1.0, (5, 5, 5))
        volume = Volume(resample(stack, grid), grid.affine_ras)
        tolerance = max(10.0, 3 * point["local_sd"])
        assert value_at(volume, point["RAS_mm"]) == pytest.approx(point["mean_HU_3x9x9"], abs=tolerance), point


def test_the_cropped_head_is_where_it_was(ge: SliceStack, ge_whole: Volume, shared: Path) -> None:
    volume = preprocess_stack(ge, IsotropicSettings())
    assert volume.voxels.shape == (144, 144, 144)
    assert volume.cropped_mm == 0
    for point in facts_of(shared, "ge_head_tilt")["landmarks"]["points"]:
        if point["kind"] != "air":
            tolerance = max(20.0, 3 * point["local_sd"])
            assert value_at(volume, point["RAS_mm"]) == pytest.approx(point["mean_HU_3x9x9"], abs=tolerance), point
    # bone of the whole scan that lies above the cut, 190 mm below the vertex, and is no head rest
    kept = np.argwhere(volume.voxels > -1024)
    low, high = (volume.affine[:3, :3] @ edge[::-1] + volume.affine[:3, 3] for edge in (kept.min(0), kept.max(0)))
    x, y, z = (ge_whole.affine[a, 3] + np.arange(ge_whole.voxels.shape[2 - a]) for a in range(3))
    assert high[2] - low[2] == pytest.approx(190, abs=10)
    inside = np.ix_((z > low[2]) & (z < high[2]), (y > low[1]) & (y < high[1]), (x > low[0]) & (x < high[0]))
    mask = np.zeros(ge_whole.voxels.shape, bool)
    mask[inside] = True
    truth, truth_ml = bone_centroid(ge_whole, mask)
    centroid, volume_ml = bone_centroid(volume)
    assert np.abs(centroid - truth).max() < 1.5
    assert volume_ml == pytest.approx(truth_ml, rel=0.06)
    brain = facts_of(shared, "ge_head_tilt")["after_exact_resample_to_1mm"]["brain_like_20..45HU_volume_mL"]
    assert np.count_nonzero((volume.voxels >= 20) & (volume.voxels <= 45)) * 1.5**3 / 1000 == pytest.approx(
        brain, rel=0.06
    )


def test_the_sheared_nifti_is_where_its_sform_says(shared_scans: Path, shared: Path) -> None:
    truth = json.loads((shared / "data" / "nifti" / "FACTS.json").read_text())["ge_upper14_sheared.nii.gz"]
    volume = preprocess_stack(load(shared_scans, "nifti/ge_upper14_sheared.nii.gz"), WHOLE)
    centroid, volume_ml = bone_centroid(volume)
    assert np.abs(centroid - truth["bone_centroid_RAS_from_sform(correct)"]).max() < 1.5
    assert np.abs(centroid - truth["bone_centroid_RAS_from_qform(wrong)"]).max() > 10
    # counted in slices of 7 mm; interpolated between them, a threshold below half of bone's HU makes bone thicker
    assert truth["bone_HU>300_volume_mL_true"] < volume_ml < 1.12 * truth["bone_HU>300_volume_mL_true"]


@pytest.mark.parametrize("top_mm", [260.0, 220.0])
def test_the_head_is_kept_and_nothing_else(top_mm: float) -> None:
    stack, parts = head_on_a_table(top_mm)
    volume = preprocess_stack(stack, IsotropicSettings(spacing_mm=2.0, shape_voxels=108))
    vertex_mm = min(250.0, top_mm)

    def seen(name: str, lowest_mm: float) -> float:
        """Share of a part above a height that is above -500 HU in the volume."""
        k, j, i = np.nonzero(parts[name] & (stack.origins_ras_mm[:, 2] > lowest_mm)[:, None, None])
        points = stack.origins_ras_mm[k] + j[:, None] * stack.row_step_ras_mm + i[:, None] * stack.column_step_ras_mm
        index = np.rint((points - volume.affine[:3, 3]) / 2.0).astype(int)
        ok = ((index >= 0) & (index < 108)).all(axis=1)
        x, y, z = index[ok].T
        return float((volume.voxels[z, y, x] > -500).sum() / len(k))

    cut = vertex_mm - 190
    for name in ("brain", "bone", "ears", "nose"):
        assert seen(name, cut + 8) > 0.93, name
    assert seen("neck", cut + 8) > 0.9
    assert seen("table", -1) == 0
    assert seen("rest", -1) < 0.01
    assert seen("shoulders", -1) < 0.01
    z = volume.affine[2, 3] + 2.0 * np.flatnonzero((volume.voxels > -500).any(axis=(1, 2)))
    assert z.max() == pytest.approx(vertex_mm, abs=6)
    assert z.min() == pytest.approx(max(cut, 40.0), abs=6)


def test_a_head_too_large_for_the_volume_says_so() -> None:
    stack, _ = head_on_a_table()
    volume = preprocess_stack(stack, IsotropicSettings(spacing_mm=2.0, shape_voxels=80))
    assert volume.voxels.shape == (80, 80, 80)
    assert 25 <= volume.cropped_mm <= 60
    assert volume.voxels[38:43, 38:43, 38:43].mean() == pytest.approx(35, abs=2)
    loose = preprocess_stack(stack, IsotropicSettings(spacing_mm=2.0, shape_voxels=None))
    assert loose.cropped_mm == 0
    assert all(90 < n < 125 for n in loose.voxels.shape)


def test_settings_name_the_cache() -> None:
    assert IsotropicSettings().folder_name() == IsotropicSettings(spacing_mm=1.5).folder_name()
    names = {
        IsotropicSettings(spacing_mm=spacing, shape_voxels=n).folder_name() for spacing in (1, 2) for n in (96, 144)
    }
    assert len(names) == 4
    assert WHOLE.shape_voxels is None
    with pytest.raises(ValueError, match="leave shape_voxels out"):
        IsotropicSettings(head_crop=False, shape_voxels=96)
    assert all(IsotropicSettings().described()["meaning"].values())
