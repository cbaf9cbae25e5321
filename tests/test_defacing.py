"""Faces are taken off, brains are left: phantoms whose parts are known, and real heads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from fmct.cli import main
from fmct.data.defacing import face_mask
from fmct.data.geometry import SliceStack
from fmct.data.intracranial import find_intracranial, pooled, pooled_mean
from fmct.data.nifti import load_nifti
from fmct.data.phantom import bleeds, distractors, mass_effect  # noqa: F401 - registers the findings
from fmct.data.phantom.anatomy import Anatomy
from fmct.data.phantom.findings import draw_findings
from fmct.data.phantom.head import HeadParameters, Pose, draw_head
from fmct.data.phantom.render import Grid, render
from fmct.data.phantom.shapes import ellipsoid
from fmct.data.preprocessing import preprocess_stack
from fmct.data.presets import IsotropicSettings
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.series import find_scans
from fmct.data.volume_file import checksum
from fmct.data.volumes import VolumeCache
from tests.synthetic_heads import phantom, posed

SPACING_MM, AIR_HU = 2.0, -1024
GRID = Grid((-120.0, -125.0, -150.0), SPACING_MM, (135, 129, 120))
FACE_AND_NECK = {"neck_mm": 150.0}


@dataclass(frozen=True)
class Faced:
    """A phantom with all of its face, and where its parts are: distances in mm on the same voxels, negative inside."""

    hu: np.ndarray
    parts: dict[str, np.ndarray]
    points_mm: np.ndarray

    def seen(self) -> np.ndarray:
        """Where the scan is."""
        return self.hu > AIR_HU

    def feature(self, name: str) -> np.ndarray:
        """Soft tissue of a feature of the face."""
        return (self.parts[name] < -1.0) & (self.hu > -300) & (self.hu < 300)


Change = Callable[[Faced], np.ndarray]


def faced(head: HeadParameters, findings: tuple[str, ...] = (), noise_hu: float = 5.0) -> Faced:
    """Render a head with its face on a grid that reaches below the chin; air is never `AIR_HU` exactly."""
    lesions = draw_findings(np.random.default_rng(0), head, findings)
    hu = render(head, GRID, lesions, couch=False).hu
    hu = hu + np.random.default_rng(1).normal(0, noise_hu, hu.shape).astype(np.float32)
    axes = [GRID.axis_mm(axis) for axis in (2, 1, 0)]
    points = head.pose.to_head(np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")[::-1]]))
    parts = {name: part.reshape(hu.shape) for name, part in Anatomy(head).parts(points).items()}
    return Faced(np.clip(np.rint(hu), AIR_HU + 1, 3071).astype(np.int16), parts, points.reshape(3, *hu.shape))


def head_of(seed: int, size: float = 1.0, **pose: float) -> HeadParameters:
    head = draw_head(np.random.default_rng(seed))
    scale = tuple(size * side for side in head.scale)
    return head.model_copy(update={"pose": Pose(**FACE_AND_NECK, **pose), "scale": scale})


def only(faced: Faced, low: int = 0, high: int | None = None) -> Faced:
    """The same scanned over some planes only."""
    hu = faced.hu.copy()
    hu[:low] = AIR_HU
    if high is not None:
        hu[high:] = AIR_HU
    return Faced(hu, faced.parts, faced.points_mm)


def in_thick_slices(faced: Faced, planes: int = 3) -> Faced:
    whole = len(faced.hu) // planes * planes
    mean = faced.hu[:whole].reshape(-1, planes, *faced.hu.shape[1:]).mean(axis=1).repeat(planes, axis=0)
    hu = np.concatenate([mean, faced.hu[whole:]])
    return Faced(np.rint(hu).astype(np.int16), faced.parts, faced.points_mm)


def tilted(faced: Faced, degrees: float) -> Faced:
    """The same scanned with a tilted gantry: slices fall toward the back, and so do the ends of the scan."""
    shear = np.tan(np.deg2rad(degrees)) * (np.arange(faced.hu.shape[1]) - faced.hu.shape[1] / 2)
    z = np.arange(len(faced.hu))[:, None]
    outside = (z < 30 + shear) | (z > len(faced.hu) - 28 + shear)
    return Faced(np.where(outside[:, :, None], np.int16(AIR_HU), faced.hu), faced.parts, faced.points_mm)


def check(faced: Faced, mask: np.ndarray, least_margin_mm: float = 3.0) -> None:
    """Nothing of what is inside the skull goes, everything of nose and lips does."""
    inside = (faced.parts["intracranial"] < least_margin_mm) & faced.seen()
    assert not (mask & inside).any()
    for name in ("nose", "lips", "chin"):
        feature = faced.feature(name) & faced.seen()
        assert np.count_nonzero(mask & feature) >= 0.99 * np.count_nonzero(feature), name
    skin_of_lids = faced.feature("lids") & (faced.parts["lids"] > -4.0) & (faced.points_mm[1] > 76.0)
    assert np.count_nonzero(mask & skin_of_lids) >= 0.8 * np.count_nonzero(skin_of_lids & faced.seen())


@pytest.mark.parametrize(
    ("seed", "size", "pose"),
    [
        (0, 1.0, {}),
        (1, 0.8, {"pitch_deg": 20.0}),
        (2, 1.08, {"pitch_deg": -20.0}),
        (3, 0.9, {"yaw_deg": 20.0, "pitch_deg": 8.0}),
        (4, 1.0, {"yaw_deg": -20.0, "roll_deg": 10.0, "pitch_deg": -8.0}),
        (5, 1.0, {"roll_deg": 20.0}),
    ],
)
def test_heads_of_any_size_and_pose_lose_the_face_and_keep_the_brain(
    seed: int, size: float, pose: dict[str, float]
) -> None:
    made = faced(head_of(seed, size, **pose))
    assert made.feature("nose").sum() > 400
    assert made.feature("lips").sum() > 300
    check(made, face_mask(made.hu, SPACING_MM, AIR_HU))


@pytest.fixture(scope="module")
def usual() -> Faced:
    return faced(head_of(6, pitch_deg=5.0), ("IPH", "SDH", "MidlineShift", "Calcification"))


@pytest.mark.parametrize(
    "scanned",
    [
        only,
        in_thick_slices,
        lambda faced: in_thick_slices(only(faced, 0, 100)),
        lambda faced: only(faced, 45),
        lambda faced: only(faced, 55, 100),
        lambda faced: tilted(faced, 18.0),
        lambda faced: tilted(faced, -10.0),
    ],
    ids=["whole", "thick", "no vertex", "no chin", "neither", "gantry tilt", "gantry tilt, other way"],
)
def test_what_isnt_scanned_doesnt_matter(usual: Faced, scanned: Callable[[Faced], Faced]) -> None:
    made = scanned(usual)
    assert (made.feature("nose") & made.seen()).sum() > 200
    check(made, face_mask(made.hu, SPACING_MM, AIR_HU))


def painted(where: Callable[[Faced], np.ndarray], value: float) -> Change:
    return lambda faced: np.where(where(faced), value, faced.hu)


def near(faced: Faced, center_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    distance = ellipsoid(faced.points_mm.reshape(3, -1), center_mm, (radius_mm,) * 3)
    return distance.reshape(faced.hu.shape) < 0


def with_streaks(faced: Faced) -> np.ndarray:
    """Crowns of metal and the noise around them."""
    z = faced.points_mm[2]
    streaks = np.random.default_rng(0).normal(0, 400, faced.hu.shape) * (np.abs(z + 94) < 12)
    return np.where(near(faced, (25.0, 45.0, -88.0), 7.0), 3071, faced.hu + streaks)


def with_vessels(faced: Faced) -> np.ndarray:
    """Contrast in the arteries' place, as dense as bone."""
    x, y, z = faced.points_mm
    between = (np.abs(x) < 2.5) & (y > 0) & (y < 45) & (np.abs(z - 20) < 25)
    sylvian = (np.abs(np.abs(x) - 40) < 2.5) & (np.abs(y) < 25) & (np.abs(z + 5) < 3)
    return np.where((between | sylvian) & (faced.parts["intracranial"] < -3), 400, faced.hu)


CONDITIONS: dict[str, Change] = {
    "no bone in the forehead": painted(lambda f: near(f, (20.0, 75.0, 25.0), 35.0) & (f.hu > 100), 35),
    "half a vault": painted(lambda f: near(f, (70.0, 0.0, 20.0), 60.0) & (f.hu > 100), 35),
    "cement in the forehead": painted(lambda f: near(f, (20.0, 75.0, 25.0), 35.0) & (f.hu > 250), 130),
    "fracture of an orbit's roof": painted(lambda f: near(f, (28.0, 48.0, -18.0), 14.0) & (f.hu > 100), 35),
    "air before the brain": painted(lambda f: (f.parts["intracranial"] < -2) & (f.points_mm[1] > 45), -990),
    "blood over the brain": painted(lambda f: (f.parts["intracranial"] < -2) & (f.points_mm[1] > 55), 90),
    "hydrocephalus": painted(lambda f: f.parts["intracranial"] < -14, 5),
    "crowns": with_streaks,
    "contrast agent": with_vessels,
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_disease_and_surgery_dont_matter(usual: Faced, condition: str) -> None:
    hu = np.clip(np.rint(CONDITIONS[condition](usual)), AIR_HU + 1, 3071).astype(np.int16)
    assert (hu != usual.hu).sum() > 200
    check(usual, face_mask(hu, SPACING_MM, AIR_HU))


def test_thick_bone_in_the_forehead_doesnt_matter(usual: Faced) -> None:
    """Hyperostosis grows inward, so less of the space is inside."""
    thicker = (usual.parts["intracranial"] > -8) & (usual.parts["intracranial"] < 1) & (usual.points_mm[1] > 30)
    thicker &= usual.points_mm[2] > -5
    hu = np.where(thicker, np.int16(900), usual.hu)
    mask = face_mask(hu, SPACING_MM, AIR_HU)
    check(usual, mask & ~thicker, 0.0)
    assert (mask & usual.feature("nose")).sum() >= 0.99 * usual.feature("nose").sum()


def test_the_cut_is_a_plane_and_says_nothing_of_the_face(usual: Faced) -> None:
    """All beyond it becomes padding, air too; two faces before one skull are cut alike."""
    mask = face_mask(usual.hu, SPACING_MM, AIR_HU)
    first = np.where(mask.any(axis=1), mask.argmax(axis=1), np.nan)
    z, x = np.nonzero(np.isfinite(first) & (first > 0))
    design = np.stack([z, x, np.ones_like(z)], axis=1)
    residual = first[z, x] - design @ np.linalg.lstsq(design, first[z, x], rcond=None)[0]
    assert np.abs(residual).max() <= 1.0
    assert mask[:, -1].sum() == mask.any(axis=1).sum()  # whatever is cut is cut to the front
    nose = usual.parts["nose"] < 12
    other = np.where(nose & (usual.hu < -300), np.int16(40), usual.hu)
    assert np.array_equal(face_mask(other, SPACING_MM, AIR_HU), mask)


def test_the_same_scan_is_cut_the_same_way_twice(usual: Faced) -> None:
    first, again = (face_mask(usual.hu.copy(), SPACING_MM, AIR_HU, ears=True) for _ in range(2))
    assert first.tobytes() == again.tobytes()


def test_ears_go_only_when_asked(usual: Faced) -> None:
    plain, with_ears = (face_mask(usual.hu, SPACING_MM, AIR_HU, ears=ears) for ears in (False, True))
    ears = usual.feature("ears") & (np.abs(usual.points_mm[0]) > 74)
    assert ears.sum() > 300
    assert not (plain & ears).any()
    assert (with_ears & ears).sum() >= 0.97 * ears.sum()
    assert (with_ears | ~plain).all()
    check(usual, with_ears)


@pytest.mark.parametrize("pitch_deg", [0.0, 15.0, -15.0])
def test_a_scan_that_ends_above_the_orbits_is_left_as_it_is(pitch_deg: float) -> None:
    made = only(faced(head_of(7, pitch_deg=pitch_deg)), 76)
    assert not ((made.parts["nose"] < 0) & made.seen()).any()
    assert not face_mask(made.hu, SPACING_MM, AIR_HU).any()


@pytest.mark.parametrize("flipped", [(0,), (1,), (0, 1)], ids=["up and down", "front and back", "both"])
def test_a_scan_with_wrong_directions_is_rejected(usual: Faced, flipped: tuple[int, ...]) -> None:
    with pytest.raises(ScanError, match="header may be wrong about directions") as error:
        face_mask(np.ascontiguousarray(np.flip(usual.hu, flipped)), SPACING_MM, AIR_HU)
    assert error.value.code is RejectCode.NOT_DEFACED


def test_what_has_no_brain_is_rejected(usual: Faced) -> None:
    for hu in (np.where(usual.parts["intracranial"] < 1, np.int16(-1000), usual.hu), np.full_like(usual.hu, AIR_HU)):
        with pytest.raises(ScanError, match="no brain surrounded by bone") as error:
            face_mask(hu, SPACING_MM, AIR_HU)
        assert error.value.code is RejectCode.NOT_DEFACED


def test_the_coarse_grid_is_one_of_means_and_of_any_bone() -> None:
    hu = np.random.default_rng(0).integers(-1024, 3071, (7, 9, 8)).astype(np.int16)
    for factor in (1, 2, 3, 4):
        shape = tuple(side // factor for side in hu.shape)
        whole = hu[tuple(slice(0, side * factor) for side in shape)].astype(np.float64)
        blocks = whole.reshape(shape[0], factor, shape[1], factor, shape[2], factor)
        np.testing.assert_allclose(pooled_mean(hu, factor), np.minimum(blocks, 400).mean(axis=(1, 3, 5)), rtol=1e-5)
        assert np.array_equal(pooled(hu > 2000, factor), (blocks > 2000).any(axis=(1, 3, 5)))


def test_the_space_found_is_that_inside_the_skull(usual: Faced) -> None:
    space = find_intracranial(usual.hu, SPACING_MM, AIR_HU)
    assert space is not None
    truth = usual.parts["intracranial"] < 0
    whole = usual.hu.shape[0] * SPACING_MM, space.mask.shape[0] * space.step_mm
    assert whole[0] == pytest.approx(whole[1], abs=space.step_mm)
    found = ndimage.zoom(space.mask, np.array(truth.shape) / space.mask.shape, order=0, grid_mode=True, mode="nearest")
    assert (found & truth).sum() / found.sum() > 0.97
    assert (found & truth).sum() / truth.sum() > 0.8


def test_settings_name_another_cache_and_refuse_what_cant_work() -> None:
    plain, without, earless = (
        IsotropicSettings(**settings) for settings in ({}, {"deface": True}, {"deface": True, "deface_ears": True})
    )
    assert len({settings.folder_name() for settings in (plain, without, earless)}) == 3
    with pytest.raises(ValueError, match="deface_ears goes with deface"):
        IsotropicSettings(deface_ears=True)
    with pytest.raises(ValueError, match="deface needs air and bone"):
        IsotropicSettings(deface=True, hu_min=0)


def test_preprocessing_takes_the_face_off() -> None:
    stack = phantom(slice_mm=3.0, parameters=posed(neck_mm=130.0))
    settings = IsotropicSettings(spacing_mm=2.0, shape_voxels=128)
    kept = preprocess_stack(stack, settings)
    for update in ({"deface": True}, {"deface": True, "deface_ears": True}):
        changed = preprocess_stack(stack, settings.model_copy(update=update))
        again = preprocess_stack(stack, settings.model_copy(update=update))
        assert checksum(changed.voxels) == checksum(again.voxels)
        gone = changed.voxels != kept.voxels
        assert 0.02 < gone.mean() < 0.6
        assert (changed.voxels[gone] == settings.hu_min).all()
    uncropped = IsotropicSettings(spacing_mm=2.0, head_crop=False)
    pair = [preprocess_stack(stack, uncropped.model_copy(update={"deface": on})).voxels for on in (False, True)]
    assert (pair[0] != pair[1]).any()


def surface_mm(hu: np.ndarray, spacing_mm: float) -> np.ndarray:
    """How far the skin is from the front end of the volume, (Z, X), the volume's depth where there is none."""
    solid = hu[:, ::-1] > -300
    return np.where(solid.any(axis=1), solid.argmax(axis=1), hu.shape[1]) * spacing_mm


def brain_of(hu: np.ndarray, spacing_mm: float) -> np.ndarray:
    """An independent mask of the brain: soft tissue that a ball of 10 mm reaches, largest piece, cavities filled."""
    soft = ndimage.binary_opening((hu > 0) & (hu < 100), iterations=round(4 / spacing_mm))
    core = ndimage.distance_transform_edt(soft) * spacing_mm > 10.0
    pieces, _ = ndimage.label(core)
    largest = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    return (ndimage.distance_transform_edt(~largest) * spacing_mm < 10.0) & (hu > -50) & (hu < 150)


@pytest.mark.parametrize(
    ("name", "brain_ml", "area_cm2", "lowered_mm"),
    [("dicom/ge_head_tilt", 1200, 30, 8), ("dicom/headneck_pycerr", 800, 200, 35)],
)
def test_real_heads_lose_the_face_and_keep_the_brain(
    shared_scans: Path, name: str, brain_ml: float, area_cm2: float, lowered_mm: float
) -> None:
    stack = find_scans([shared_scans / name])[0][0].load()
    kept, cut = cubes_of(stack)
    brain = brain_of(kept, 2.0)
    assert brain.sum() * 8 / 1000 > brain_ml
    assert not ((kept != cut) & ndimage.binary_dilation(brain, iterations=1)).any()
    lowered = surface_mm(cut, 2.0) - surface_mm(kept, 2.0)
    assert (lowered >= 0).all()
    face = lowered > 4
    assert face.sum() * 4 / 100 > area_cm2
    assert np.median(lowered[face]) > lowered_mm


def test_a_real_scan_of_the_vault_is_left_as_it_is(shared_scans: Path) -> None:
    kept, cut = cubes_of(load_nifti(shared_scans / "nifti" / "ge_upper14_sheared.nii.gz"))
    assert np.array_equal(kept, cut)


def cubes_of(stack: SliceStack) -> list[np.ndarray]:
    """The volume with and without the face, with all of the head in it."""
    settings = IsotropicSettings(spacing_mm=2.0, shape_voxels=None, head_height_mm=230.0)
    return [preprocess_stack(stack, settings.model_copy(update={"deface": on})).voxels for on in (False, True)]


def test_a_hollow_skull_is_rejected_rather_than_kept_with_its_face(shared_scans: Path, tmp_path: Path) -> None:
    manifest, cache = tmp_path / "manifest.csv", tmp_path / "cache"
    where = [str(shared_scans / "dicom" / "philips_phantom_study"), "--out", str(manifest)]
    assert main(["index", *where, "--key-file", str(tmp_path / "key"), "--skip-rules", "NOT_A_HEAD"]) == 3
    small = ["--spacing-mm", "3", "--shape-voxels", "72", "--root", str(shared_scans / "dicom/philips_phantom_study")]
    assert main(["preprocess", str(manifest), "--cache", str(cache), *small]) == 0
    assert main(["preprocess", str(manifest), "--cache", str(cache), *small, "--deface", "--deface-ears"]) == 3
    assert main(["preprocess", str(manifest), "--cache", str(cache), "--deface-ears"]) == 2
    folders = {
        json.loads((folder / "settings.json").read_text())["settings"]["deface"]: folder for folder in cache.iterdir()
    }
    assert len(VolumeCache.open(folders[False]).index) == 1
    rejects = pd.read_csv(folders[True] / "rejects.csv")
    assert rejects["code"].tolist() == ["NOT_DEFACED"]
    assert not list((folders[True] / "volumes").rglob("*.b2nd"))
