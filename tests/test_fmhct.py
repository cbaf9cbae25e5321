"""The preset `fmhct` against the published chain, put together from MONAI's own transforms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy.spatial.transform import Rotation
from synthetic_heads import phantom

from fmct.benchmarks.preprocessing import THICK, write_phantoms
from fmct.benchmarks.published_chain import published_input, published_windows
from fmct.console.errors import UsageError
from fmct.data.fmhct import even_scan, fmhct_windows, preprocess_fmhct
from fmct.data.fmhct_grid import SpacingGrid
from fmct.data.fmhct_resampling import cheapest_way, resample_splines, without_negligible_shear
from fmct.data.geometry import PADDING_HU, SliceStack
from fmct.data.grid import Grid
from fmct.data.nifti import StoredStack, load_nifti
from fmct.data.presets import FmhctSettings, IsotropicSettings, parse_settings, require_hu
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.resampling import resample
from fmct.data.series import find_scans

GREATEST, MEAN = 1e-4, 1e-6
GREATEST_OF_FLOAT16 = 1e-3
SETTINGS = FmhctSettings()


def ours(path: Path, settings: FmhctSettings = SETTINGS) -> np.ndarray:
    found = fmhct_windows(*even_scan(load_nifti(path)), settings)
    assert found is not None
    return found[0]


def assert_published(path: Path, greatest: float = GREATEST) -> np.ndarray:
    """Check that ours is the published picture of a file, and return it."""
    windows, published = ours(path), published_windows(path)
    assert windows.shape == published.shape == (3, 96, 96, 96)
    assert windows.dtype == published.dtype == np.float32
    assert published.std() > 0.01
    difference = np.abs(windows - published)
    assert difference.max() <= greatest
    assert difference.mean() <= MEAN
    return windows


def blobs(shape: tuple[int, int, int], background: float = -1000.0) -> np.ndarray:
    """A skull, brain and blobs in air with noise, (X, Y, Z), lopsided so that turned axes show."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    values = np.select([radius < 0.6, radius < 0.7, radius < 0.75], [35.0, 1200.0, 60.0], background)
    for x, y, z, size, hu in ((0.3, 0.1, 0.2, 0.15, 75.0), (-0.2, 0.35, -0.1, 0.2, 5.0), (0.9, -0.2, 0.4, 0.08, 300.0)):
        values[(axes[0] - x) ** 2 + (axes[1] - y) ** 2 + (axes[2] - z) ** 2 < size**2] = hu
    noise = np.random.default_rng(0).normal(0, 6, shape)
    return np.where(values == background, background + (noise if background else 0), values + noise)


def affine_of(steps_mm: tuple[float, float, float], turned_deg: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", turned_deg, degrees=True).as_matrix() @ np.diag(steps_mm)
    affine[:3, 3] = (-41.3, 17.2, 230.1)
    return affine


def sheared(**shear: float) -> np.ndarray:
    """An affine whose slices are shifted along y (a) and x (b) of their plane, whose rows are (c)."""
    affine = affine_of((1.4, 1.4, 4.0), (3, 0, 0))
    affine[:3, 2] += shear.get("a", 0) * affine[:3, 1] + shear.get("b", 0) * affine[:3, 0]
    affine[:3, 1] += shear.get("c", 0) * affine[:3, 0]
    return affine


def save(path: Path, values: np.ndarray, affine: np.ndarray, codes: str = "RAS") -> Path:
    image = nib.Nifti1Image(values, affine)
    if codes != "RAS":
        image = image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(codes)))
    nib.save(image, path)
    return path


@pytest.mark.parametrize("codes", ["LAS", "LPI", "RPS", "SAR", "PIL"])
def test_every_way_of_storing_gives_the_published_picture(tmp_path: Path, codes: str) -> None:
    values = np.rint(blobs((51, 47, 18))).astype(np.int16)
    plain = ours(save(tmp_path / "ras.nii.gz", values, affine_of((1.3, 1.6, 4.0))))
    stored = assert_published(save(tmp_path / "other.nii.gz", values, affine_of((1.3, 1.6, 4.0)), codes))
    np.testing.assert_allclose(stored, plain, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "affine", "way"),
    [
        ((101, 97, 12), affine_of((0.7, 0.7, 5.0)), "separable"),
        ((48, 50, 40), affine_of((1.0, 1.0, 3.0)), "separable"),
        ((70, 64, 60), affine_of((1.0, 1.0, 1.0)), "separable"),
        ((70, 64, 20), affine_of((1.0004, 0.9995, 2.5)), "separable"),
        ((40, 48, 25), affine_of((1.5, 1.25, 2.0), (4, -11, 20)), "separable"),
        ((60, 55, 16), sheared(a=0.8), "sheared"),
        ((60, 55, 16), sheared(a=-0.5, b=0.3), "sheared"),
        ((60, 55, 16), sheared(b=0.001), "sheared"),
        ((60, 55, 16), sheared(a=0.4, b=-0.2, c=0.1), "general"),
        ((130, 120, 110), affine_of((1.3, 1.2, 0.8)), "separable"),
    ],
)
def test_every_geometry_gives_the_published_picture(
    tmp_path: Path, shape: tuple[int, int, int], affine: np.ndarray, way: str
) -> None:
    assert cheapest_way(without_negligible_shear(SpacingGrid.of(shape, affine))) == way
    assert_published(save(tmp_path / "scan.nii.gz", np.rint(blobs(shape)).astype(np.int16), affine))


def test_the_more_general_ways_agree() -> None:
    values = blobs((40, 36, 14)).astype(np.float32)
    grid = SpacingGrid.of(values.shape, affine_of((1.4, 1.1, 4.0)))
    separable, plane_by_plane, pointwise = (
        resample_splines(values, grid, way) for way in ("separable", "sheared", "general")
    )
    np.testing.assert_allclose(plane_by_plane, separable, atol=0.05)
    np.testing.assert_allclose(pointwise, separable, atol=0.05)


def fractions(path: Path, values: np.ndarray) -> None:
    save(path, values.astype(np.float32), affine_of((1.3, 1.6, 4.0)))


def doubles_beyond_int16(path: Path, values: np.ndarray) -> None:
    beyond = np.where(values > 1190, values * 50, values)
    save(path, beyond, affine_of((1.3, 1.6, 4.0)))


def scaled(path: Path, values: np.ndarray) -> None:
    image = nib.Nifti1Image(values, affine_of((1.3, 1.6, 4.0)))
    image.header.set_data_dtype(np.int16)
    image.header.set_slope_inter(0.3, -512.25)
    nib.save(image, path)


def big_endian_unsigned(path: Path, values: np.ndarray) -> None:
    header = nib.Nifti1Header(endianness=">")
    image = nib.Nifti1Image(np.rint(values + 2000).astype(">u2"), affine_of((1.3, 1.6, 4.0)), header)
    image.header.set_slope_inter(1.0, -2000.0)
    nib.save(image, path)


@pytest.mark.parametrize("write", [fractions, doubles_beyond_int16, scaled, big_endian_unsigned])
def test_files_keep_their_own_values(tmp_path: Path, write: Callable[[Path, np.ndarray], None]) -> None:
    path = tmp_path / "scan.nii.gz"
    write(path, blobs((51, 47, 18)))
    stack = load_nifti(path)
    assert isinstance(stack, StoredStack)
    np.testing.assert_allclose(np.clip(np.rint(stack.unrounded().astype(float)), -32767, 32767), stack.hu, atol=0)
    assert_published(path, greatest=2e-3 if write is doubles_beyond_int16 else GREATEST)


def test_a_background_of_zero_is_cut_where_the_splines_ripple_ends(tmp_path: Path) -> None:
    path = save(
        tmp_path / "zero.nii.gz", np.rint(blobs((60, 58, 40), 0.0)).astype(np.int16), affine_of((1.7, 1.6, 2.0))
    )
    assert_published(path)


def test_a_full_scan_with_5_mm_slices(tmp_path: Path) -> None:
    path = write_phantoms(tmp_path, only=THICK)[THICK]
    assert nib.load(path).shape == (512, 512, 32)
    windows = assert_published(path)
    volume = preprocess_fmhct(load_nifti(path), SETTINGS)
    assert volume.voxels.dtype == np.float16
    assert np.array_equal(volume.voxels, windows.transpose(0, 3, 2, 1).astype(np.float16))


def test_other_windows_and_sizes(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz", np.rint(blobs((60, 55, 16))).astype(np.int16), sheared(a=0.3))
    one = ours(path, FmhctSettings(channels=1, shape_voxels=48))
    np.testing.assert_allclose(one, published_windows(path, [(40, 300)], 48), atol=GREATEST)
    cast, published = ours(path).astype(np.float16), published_input(path)
    assert published.dtype == np.float16
    assert np.abs(cast.astype(np.float32) - published).max() <= GREATEST_OF_FLOAT16


def test_real_sheared_scan(shared_scans: Path) -> None:
    assert_published(shared_scans / "nifti" / "ge_upper14_sheared.nii.gz")


def as_nifti(stack: SliceStack, path: Path) -> Path:
    affine = np.eye(4)
    step = (stack.origins_ras_mm[-1] - stack.origins_ras_mm[0]) / (len(stack.hu) - 1)
    affine[:3] = np.stack([stack.column_step_ras_mm, stack.row_step_ras_mm, step, stack.origins_ras_mm[0]], axis=1)
    hu = np.where(stack.hu == PADDING_HU, -1024, stack.hu)
    return save(path, np.ascontiguousarray(hu.transpose(2, 1, 0)), affine)


@pytest.mark.parametrize(
    "name", ["philips_phantom_tilt_neg18", pytest.param("headneck_pycerr", marks=pytest.mark.slow)]
)
def test_dicom_gives_what_its_nifti_gives(shared_scans: Path, tmp_path: Path, name: str) -> None:
    stack = find_scans([shared_scans / "dicom" / name])[0][0].load()
    found = fmhct_windows(*even_scan(stack), SETTINGS)
    assert found is not None
    np.testing.assert_allclose(found[0], assert_published(as_nifti(stack, tmp_path / "scan.nii.gz")), atol=1e-4)


def test_uneven_gaps_go_through_true_geometry(shared_scans: Path, tmp_path: Path) -> None:
    stack = find_scans([shared_scans / "dicom" / "ge_head_tilt"])[0][0].load()
    assert np.ptp(stack.gaps_mm) > 5
    grid = Grid.covering(*stack.bounds_ras_mm(), 1.0)
    even = save(tmp_path / "even.nii.gz", resample(stack, grid).transpose(2, 1, 0), grid.affine_ras)
    volume = preprocess_fmhct(stack, SETTINGS)
    apart = volume.voxels.transpose(0, 3, 2, 1).astype(np.float32) - published_windows(even)
    assert np.abs(apart).max() < GREATEST_OF_FLOAT16
    assert np.abs(volume.affine[:3, :3] - np.diag(np.diag(volume.affine)[:3])).max() == 0  # upright, not tilted


def test_padding_counts_as_air() -> None:
    stack = phantom()
    marked = stack.hu.copy()
    marked[:, :20] = PADDING_HU
    air = np.where(marked == PADDING_HU, -1024, marked).astype(np.int16)
    volumes = [preprocess_fmhct(replace(stack, hu=hu), SETTINGS) for hu in (marked, air)]
    assert np.array_equal(volumes[0].voxels, volumes[1].voxels)


def test_the_affine_says_where_voxels_are() -> None:
    z, y, x = (np.arange(n) for n in (30, 70, 80))
    origins = np.array([-60.0, -50.0, 10.0]) + z[:, None] * [0, 0, 4.0]
    stack = SliceStack(np.full((30, 70, 80), -1000, np.int16), origins, np.array([0, 1.5, 0]), np.array([1.5, 0, 0]))
    places = [origins[:, 2, None, None], (-50 + 1.5 * y)[:, None], -60 + 1.5 * x]
    head = sum(
        ((place - center) / size) ** 2 for place, center, size in zip(places, (70, 5, 4), (50, 45, 40), strict=True)
    )
    lesion = np.array([20.0, -10.0, 90.0])  # x, y, z
    near = sum((place - center) ** 2 for place, center in zip(places, lesion[::-1], strict=True)) < 12**2
    hu = np.where(near, 500, np.where(head < 1, 20, -1000)).astype(np.int16)
    found = fmhct_windows(*even_scan(replace(stack, hu=hu)), SETTINGS)
    assert found is not None
    windows, affine = found
    center = affine @ [*np.argwhere(windows[2] > 0.4).mean(axis=0), 1.0]  # 320 HU in the bone window
    np.testing.assert_allclose(center[:3], lesion, atol=1.0)
    steps = np.diag(affine)[:3]
    np.testing.assert_allclose(steps * 96, [80, 90, 100], atol=5)  # the box is the head's
    assert np.count_nonzero(affine[:3, :3]) == 3


def test_rules_apply_as_in_the_other_preset() -> None:
    stack = phantom()
    raw = replace(stack, hu=stack.hu + np.int16(1024))
    with pytest.raises(ScanError, match="IMPLAUSIBLE_HU"):
        preprocess_fmhct(raw, SETTINGS)
    both = frozenset({RejectCode.IMPLAUSIBLE_HU, RejectCode.NOT_A_HEAD})
    assert preprocess_fmhct(raw, SETTINGS, skip=both).voxels.shape == (3, 96, 96, 96)
    low = replace(stack, hu=stack.hu[:8], origins_ras_mm=stack.origins_ras_mm[:8])
    with pytest.raises(ScanError, match="NOT_A_HEAD"):
        preprocess_fmhct(low, SETTINGS)
    air = replace(stack, hu=np.full_like(stack.hu, -1000))
    with pytest.raises(ScanError, match="nothing in it is above 0 HU"):
        preprocess_fmhct(air, SETTINGS, skip=both)


def test_settings_of_both_presets() -> None:
    for settings in (FmhctSettings(), FmhctSettings(channels=1), IsotropicSettings()):
        assert parse_settings(settings.model_dump(), "here") == settings
        assert settings.folder_name().startswith(settings.preset + "-")
        assert all(settings.described()["meaning"].values())
    assert FmhctSettings().folder_name() != FmhctSettings(channels=1).folder_name()
    assert FmhctSettings().windows_hu == ((40, 80), (80, 200), (600, 2800))
    with pytest.raises(UsageError, match="spacing_mm"):
        parse_settings({"preset": "fmhct", "spacing_mm": 1.0}, "here")
    with pytest.raises(UsageError, match=r"display windows, not HU[\s\S]*--preset isotropic"):
        require_hu(SETTINGS, Path("cache"))
