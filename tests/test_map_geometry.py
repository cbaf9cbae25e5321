"""Maps end where they belong in the patient, on any grid: patches, cells of feature maps, tilted and cropped scans."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from fmct.console.files import file_name
from fmct.data.geometry import SliceStack
from fmct.data.own_grid import VoxelGrid, grid_of_file, grid_of_stack
from fmct.data.presets import IsotropicSettings
from fmct.data.rules import parse_rules
from fmct.data.scan_inputs import FoundScan, of_disk
from fmct.data.volumes import Volume
from fmct.evaluation.explanations import ExplanationMap
from fmct.evaluation.map_files import write_maps
from fmct.evaluation.map_geometry import Lattice, lattice_affine, onto
from fmct.models.cnn import ResNetConfig
from fmct.views.network_input import InputConfig

SIDE, INPUT, PATCH = 40, 32, 8
AFFINE = np.array([[3.0, 0, 0, -70], [0, 3.0, 0, -40], [0, 0, 3.0, 12], [0, 0, 0, 1]])


def test_places_of_patches_are_where_the_network_sees_them() -> None:
    """A volume whose HU are a coordinate, seen by the network, averaged over patches: the coordinates of patches."""
    indices = np.mgrid[:SIDE, :SIDE, :SIDE].astype(float)
    lattice = Lattice.of_patches((PATCH, PATCH, PATCH))
    affine = lattice_affine(lattice, INPUT, VoxelGrid(AFFINE, (SIDE, SIDE, SIDE)))
    places = np.mgrid[:4, :4, :4].reshape(3, -1)[::-1]  # x, y, z of every patch in the order of tokens
    for axis in range(3):
        world = AFFINE[axis, axis] * indices[2 - axis] + AFFINE[axis, 3]
        seen = InputConfig(voxels=INPUT).sampled(
            torch.from_numpy(np.rint(world * 50).astype(np.int16))[None, None], identity_crop()
        )
        patches = F.avg_pool3d(seen, PATCH).ravel().numpy() / 50
        expected = affine[axis] @ np.vstack([places, np.ones(64)])
        np.testing.assert_allclose(patches, expected, atol=0.4)  # the outermost voxels are held, not extrapolated


def identity_crop() -> object:
    from fmct.views.crops import identity

    return identity(1)


@pytest.mark.parametrize("stage", [2, 3, 4])
def test_cells_of_a_resnet_are_centered_on_every_nth_voxel(stage: int) -> None:
    """The gradient of a cell with respect to the input is centered where the lattice says the cell is."""
    torch.manual_seed(0)
    model = ResNetConfig(depth=10, widen=0.25).build(1, 128).eval()
    length, stride = 224, model.stride_of(stage)
    center = 112 // stride
    lattice = Lattice.of_stride(stride)
    seen = torch.zeros(length)
    for _ in range(3):
        x = torch.rand(1, 1, length, 8, 8, requires_grad=True)
        kept: list[torch.Tensor] = []
        hook = getattr(model.net, f"layer{stage}").register_forward_hook(
            lambda _m, _a, out, kept=kept: kept.append(out)
        )
        model(x)
        hook.remove()
        (gradient,) = torch.autograd.grad(kept[0][:, :, center].sum(), x)
        seen += gradient.abs().sum((0, 1, 3, 4))
    middle = float((torch.arange(length) * seen).sum() / seen.sum())
    assert middle == pytest.approx(lattice.first_zyx[0] + center * lattice.step_zyx[0], abs=stride / 8)


def centroid(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the middle in world coordinates of (X, Y, Z) values."""
    weights = np.where(values > values.max() / 2, values, 0)
    return affine[:3, :3] @ ndimage.center_of_mass(weights) + affine[:3, 3]


def tilted_head(path: Path) -> Path:
    """A head of balls, off center, in slices of a gantry tilted by 18 degrees, stored with columns to the left."""
    pixel, gap, tilt = 3.0, 5.0, np.deg2rad(18)
    row = np.array([0, np.cos(tilt), np.sin(tilt)]) * pixel
    affine = np.eye(4)
    affine[:3] = np.stack([[-pixel, 0, 0], row, [0, 0, gap], [140, -170, -120]], axis=1)
    i, j, k = np.mgrid[:96, :96, :52]
    x, y, z = (affine @ np.stack([i, j, k, np.ones_like(i)]).reshape(4, -1))[:3].reshape(3, 96, 96, 52)
    radius = np.sqrt((x - 10) ** 2 + (y + 15) ** 2 + (z - 20) ** 2)
    hu = np.select([radius < 72, radius < 82, radius < 90], [30, 1000, 20], -1000)
    hu = hu + np.random.default_rng(0).integers(-9, 9, hu.shape)
    nib.save(nib.Nifti1Image(hu.astype(np.int16), affine), path)
    return path


@pytest.mark.parametrize("own_grid", [True, False])
def test_a_planted_place_is_found_in_the_file_of_a_tilted_and_cropped_scan(tmp_path: Path, own_grid: bool) -> None:
    path = tilted_head(tmp_path / "head.nii.gz")
    settings = IsotropicSettings(spacing_mm=4.5, shape_voxels=48)
    (scan,) = of_disk([path], settings, parse_rules([], ()))
    assert isinstance(scan, FoundScan)
    patch, spacing = 6, 4.5
    origin = scan.volume.affine[:3, 3]
    centers = [origin[axis] + spacing * (np.arange(8) * patch + (patch - 1) / 2) for axis in range(3)]  # x, y, z
    target = np.array([centers[0][3] + 9.0, centers[1][4] - 7.0, centers[2][5] + 5.0])
    z, y, x = np.meshgrid(centers[2], centers[1], centers[0], indexing="ij")
    squared = (x - target[0]) ** 2 + (y - target[1]) ** 2 + (z - target[2]) ** 2
    values = np.exp(-squared / (2 * 30.0**2)).astype(np.float32)
    lattice = Lattice.of_patches((patch, patch, patch))
    affine = lattice_affine(lattice, 48, VoxelGrid.of_volume(scan.volume))
    one = ExplanationMap("relevance", "ICH", values, lattice, affine)
    (written,) = write_maps(tmp_path / "maps", scan, [one], own_grid=own_grid)
    image = nib.load(written)
    expected = nib.load(path)
    if own_grid:
        assert image.shape == expected.shape
        np.testing.assert_allclose(image.affine, expected.affine, atol=1e-4)
        assert image.header["qform_code"] == 0  # it can't say a shear, and readers that ask it first would be 45 mm off
    else:
        np.testing.assert_allclose(image.affine, scan.volume.affine)
        assert image.header["qform_code"] == 1
    assert np.linalg.norm(centroid(image.get_fdata(), image.affine) - target) < patch * spacing / 2
    assert np.linalg.norm(centroid(image.get_fdata(), image.affine) - target) < 5
    assert (tmp_path / "maps" / "relevance-ICH.png").read_bytes()[:4] == b"\x89PNG"


def test_outside_of_what_the_network_saw_there_is_nothing() -> None:
    volume = VoxelGrid(np.diag([2.0, 2.0, 2.0, 1.0]), (8, 8, 8))
    lattice = Lattice.of_patches((4, 4, 4))
    affine = lattice_affine(lattice, 8, volume)
    wide = VoxelGrid(np.array([[1.0, 0, 0, -10], [0, 1, 0, -10], [0, 0, 1, -10], [0, 0, 0, 1]]), (36, 36, 36))
    values = onto(np.ones((2, 2, 2), np.float32), affine, wide, within=volume)
    assert values.sum() == 16**3  # 16 mm across, from -1 to 15 mm
    assert (values[9:25, 9:25, 9:25] == 1).all()
    assert (onto(np.ones((2, 2, 2), np.float32), affine, wide) == 1).all()


def test_the_grid_of_a_tilted_stack_is_sheared_and_uneven_slices_have_none(tmp_path: Path) -> None:
    origins = np.array([[5.0, 2.0 + 0.5 * k, 4.0 * k] for k in range(8)])
    stack = SliceStack(np.zeros((8, 6, 7), np.int16), origins, np.array([0, 0.9, -0.2]), np.array([0.8, 0, 0]))
    grid = grid_of_stack(stack)
    assert grid is not None
    assert grid.shape_zyx == (8, 6, 7)
    np.testing.assert_allclose(grid.affine_ras @ [3, 2, 5, 1], [5 + 2.4, 2 + 2.5 + 1.8, 20 - 0.4, 1])
    origins[5:, 2] += 1.0
    assert grid_of_stack(SliceStack(stack.hu, origins, stack.row_step_ras_mm, stack.column_step_ras_mm)) is None
    path = tilted_head(tmp_path / "t.nii.gz")
    assert grid_of_file(path).shape_zyx == (52, 96, 96)


def test_names_of_labels_are_names_of_files() -> None:
    assert file_name("relevance-Mass effect/µ") == "relevance-Mass_effect_µ"
    assert file_name("../x") == "_x"


def test_windowed_volumes_are_drawn_too(tmp_path: Path) -> None:
    voxels = np.zeros((3, 12, 12, 12), np.float16)
    voxels[:, 3:9, 3:9, 3:9] = 0.5
    volume = Volume(voxels, np.diag([2.0, 2.5, 3.0, 1.0]))
    lattice = Lattice.of_patches((6, 6, 6))
    affine = lattice_affine(lattice, 12, VoxelGrid.of_volume(volume))
    heads = np.random.default_rng(0).random((2, 2, 2, 2), np.float32)
    maps = [ExplanationMap("heads", "", heads, lattice, affine)]
    (written,) = write_maps(tmp_path, FoundScan("s", "", "", volume), maps, own_grid=True)
    assert nib.load(written).shape == (12, 12, 12, 2)
