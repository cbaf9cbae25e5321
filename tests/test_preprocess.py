"""Volumes against the true geometry of real scans, and what is cut from them and what isn't."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmct.data.geometry import SliceStack
from fmct.data.grid import Grid
from fmct.data.plausibility import implausible_hu
from fmct.data.preprocessing import IsotropicSettings, preprocess_stack
from fmct.data.rejection import RejectCode, ScanError
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
    bone = volume.hu > 300 if where is None else (volume.hu > 300) & where
    index = np.argwhere(bone).mean(axis=0)[::-1]
    return volume.affine[:3, :3] @ index + volume.affine[:3, 3], bone.sum() * volume.spacing_mm**3 / 1000


def value_at(volume: Volume, point_ras: list[float]) -> float:
    """Mean of 3 x 3 x 3 voxels around a point."""
    x, y, z = np.rint((np.array(point_ras) - volume.affine[:3, 3]) / volume.spacing_mm).astype(int)
    return float(volume.hu[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2].mean())


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
    assert (ge_whole.hu > -300).sum() / 1000 == pytest.approx(truth["not_air_HU>-300_volume_mL"], rel=0.04)
    assert ge_whole.hu.min() == -1024


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
    assert volume.hu.shape == (144, 144, 144)
    assert volume.cropped_mm == 0
    for point in facts_of(shared, "ge_head_tilt")["landmarks"]["points"]:
        if point["kind"] != "air":
            tolerance = max(20.0, 3 * point["local_sd"])
            assert value_at(volume, point["RAS_mm"]) == pytest.approx(point["mean_HU_3x9x9"], abs=tolerance), point
    # bone of the whole scan that lies above the cut, 190 mm below the vertex, and is no head rest
    kept = np.argwhere(volume.hu > -1024)
    low, high = (volume.affine[:3, :3] @ edge[::-1] + volume.affine[:3, 3] for edge in (kept.min(0), kept.max(0)))
    x, y, z = (ge_whole.affine[a, 3] + np.arange(ge_whole.hu.shape[2 - a]) for a in range(3))
    assert high[2] - low[2] == pytest.approx(190, abs=10)
    inside = np.ix_((z > low[2]) & (z < high[2]), (y > low[1]) & (y < high[1]), (x > low[0]) & (x < high[0]))
    mask = np.zeros(ge_whole.hu.shape, bool)
    mask[inside] = True
    truth, truth_ml = bone_centroid(ge_whole, mask)
    centroid, volume_ml = bone_centroid(volume)
    assert np.abs(centroid - truth).max() < 1.5
    assert volume_ml == pytest.approx(truth_ml, rel=0.06)
    brain = facts_of(shared, "ge_head_tilt")["after_exact_resample_to_1mm"]["brain_like_20..45HU_volume_mL"]
    assert np.count_nonzero((volume.hu >= 20) & (volume.hu <= 45)) * 1.5**3 / 1000 == pytest.approx(brain, rel=0.06)


def test_tilted_and_untilted_phantom_coincide(shared_scans: Path) -> None:
    level, leaning = (
        load(shared_scans, f"dicom/{name}") for name in ("philips_phantom_study/S2010", "philips_phantom_tilt_neg18")
    )
    bounds = [stack.bounds_ras_mm() for stack in (level, leaning)]
    grid = Grid.covering(np.max([low for low, _ in bounds], axis=0), np.min([high for _, high in bounds], axis=0), 2.0)
    z, y, x = np.meshgrid(*(grid.centers_mm(axis) for axis in (2, 1, 0)), indexing="ij")
    common = np.ones(grid.shape_zyx, bool)
    for stack in (level, leaning):
        depth = np.stack([x, y, z], axis=-1) @ stack.normal_ras
        common &= (depth >= stack.positions_mm[0]) & (depth <= stack.positions_mm[-1])
    one, other = ((resample(stack, grid) > 300) & common for stack in (level, leaning))
    assert 2 * (one & other).sum() / (one.sum() + other.sum()) >= 0.75


def test_the_sheared_nifti_is_where_its_sform_says(shared_scans: Path, shared: Path) -> None:
    truth = json.loads((shared / "data" / "nifti" / "FACTS.json").read_text())["ge_upper14_sheared.nii.gz"]
    volume = preprocess_stack(load(shared_scans, "nifti/ge_upper14_sheared.nii.gz"), WHOLE)
    centroid, volume_ml = bone_centroid(volume)
    assert np.abs(centroid - truth["bone_centroid_RAS_from_sform(correct)"]).max() < 1.5
    assert np.abs(centroid - truth["bone_centroid_RAS_from_qform(wrong)"]).max() > 10
    # counted in slices of 7 mm; interpolated between them, a threshold below half of bone's HU makes bone thicker
    assert truth["bone_HU>300_volume_mL_true"] < volume_ml < 1.12 * truth["bone_HU>300_volume_mL_true"]


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


def test_plausibility() -> None:
    rng = np.random.default_rng(0)
    good = rng.choice(np.array([-1000, 30], np.int16), (8, 16, 16))
    assert implausible_hu(good) is None
    assert "no air" in str(implausible_hu(good + 1024))
    assert "no tissue" in str(implausible_hu(good - 1024))
    assert "no tissue" in str(implausible_hu(np.where(good > 0, -700, good)))
    assert "all values are 7" in str(implausible_hu(np.full((8, 16, 16), 7, np.int16)))
    assert "padding" in str(implausible_hu(np.full((8, 16, 16), -32768, np.int16)))
    padded = np.where(good == -1000, -32768, good).astype(np.int16)
    padded[0, 0, 0] = 900
    assert "no air" in str(implausible_hu(padded))


def head_on_a_table(top_mm: float = 260.0) -> tuple[SliceStack, dict[str, np.ndarray]]:
    """A head (skull, brain, ears, nose) on neck and shoulders, a head rest behind it and a table: 2 x 2 x 4 mm, RAS.

    Returns:
        The stack and masks (K, J, I) of its parts.
    """
    z, y, x = np.meshgrid(
        np.arange(0, top_mm, 4.0), np.arange(-160, 140, 2.0), np.arange(-250, 250, 2.0), indexing="ij"
    )
    skull = (x / 75) ** 2 + (y / 95) ** 2 + ((z - 165) / 85) ** 2
    parts = {
        "brain": skull < 0.85,
        "bone": (skull >= 0.85) & (skull < 1),
        "ears": (np.abs(np.abs(x) - 80) < 14)
        & (np.abs(y) < 15)
        & (np.abs(z - 150) < 30)
        & (np.abs(np.abs(x) - 82) < 12),
        "nose": (np.abs(x) < 8) & (y > 80) & (y < 112) & (np.abs(z - 130) < 20),
        "neck": (x**2 + (y + 10) ** 2 < 55**2) & (z < 110) & (z > 30),
        "shoulders": ((x / 230) ** 2 + ((y + 10) / 100) ** 2 < 1) & (z <= 40),
        "rest": (np.abs(np.hypot(x, y) - 118) < 4) & (y < -20) & (z > 60),
        "table": (np.abs(y + 140) < 10) & (np.abs(x) < 220),
    }
    hu = np.full(x.shape, -1000, np.int16)
    for name, value in [("table", 100), ("rest", 60), ("shoulders", 30), ("neck", 30), ("ears", 20), ("nose", 20),
                        ("bone", 900), ("brain", 35)]:  # fmt: skip
        hu[parts[name]] = value
    origins = np.array([-250.0, -160, 0]) + np.arange(len(hu))[:, None] * np.array([0, 0, 4.0])
    return SliceStack(hu, origins, np.array([0, 2.0, 0]), np.array([2.0, 0, 0])), parts


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
        return float((volume.hu[z, y, x] > -500).sum() / len(k))

    cut = vertex_mm - 190
    for name in ("brain", "bone", "ears", "nose"):
        assert seen(name, cut + 8) > 0.93, name
    assert seen("neck", cut + 8) > 0.9
    assert seen("table", -1) == 0
    assert seen("rest", -1) < 0.01
    assert seen("shoulders", -1) < 0.01
    z = volume.affine[2, 3] + 2.0 * np.flatnonzero((volume.hu > -500).any(axis=(1, 2)))
    assert z.max() == pytest.approx(vertex_mm, abs=6)
    assert z.min() == pytest.approx(max(cut, 40.0), abs=6)


def test_a_head_too_large_for_the_volume_says_so() -> None:
    stack, _ = head_on_a_table()
    volume = preprocess_stack(stack, IsotropicSettings(spacing_mm=2.0, shape_voxels=80))
    assert volume.hu.shape == (80, 80, 80)
    assert 25 <= volume.cropped_mm <= 60
    assert volume.hu[40, 40, 40] == 35
    loose = preprocess_stack(stack, IsotropicSettings(spacing_mm=2.0, shape_voxels=None))
    assert loose.cropped_mm == 0
    assert all(90 < n < 125 for n in loose.hu.shape)


def test_nothing_like_a_head_is_refused() -> None:
    stack, _ = head_on_a_table()
    crumbs = np.full(stack.hu.shape, -1000, np.int16)
    crumbs[2::5, 4::9, 4::9] = crumbs[3::5, 4::9, 4::9] = 60
    crumbs[:, :, 5::9] = np.where(crumbs[:, :, 4::9] == 60, 60, crumbs[:, :, 5::9])
    loose = SliceStack(crumbs, stack.origins_ras_mm, stack.row_step_ras_mm, stack.column_step_ras_mm)
    with pytest.raises(ScanError) as raised:
        preprocess_stack(loose, IsotropicSettings(spacing_mm=4.0, shape_voxels=48), "crumbs")
    assert raised.value.code is RejectCode.NOT_A_HEAD


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
