"""Masks of phantoms' lesions: where the lesion is, as large as it is, and nothing else of the cohort changes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from test_phantom_cohort import contents, phantom

from fmct.cli import main
from fmct.data.lesion_masks import mask_on, masks_of
from fmct.data.own_grid import VoxelGrid, grid_of_file
from fmct.data.presets import IsotropicSettings
from fmct.data.rules import parse_rules
from fmct.data.scan_inputs import FoundScan, of_disk

FINER = ["--pixel-mm", "2", "--slice-mm", "3", "--prevalence", "1", "--sites", "2", "-n", "5", "--findings", "core"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("masked") / "cohort"
    assert main(["phantom", "--out", str(out), *FINER, "--masks"]) == 0
    return out


def test_scans_are_the_same_with_and_without_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, more in (("plain", []), ("masked", ["--masks"]), ("again", ["--masks", "--workers", "2"])):
        assert phantom(tmp_path / name, "-n", "3", "--sites", "1", "--prevalence", "1", *more) == 0
    assert f"masks of lesions, for `fmct predict --masks`: {tmp_path / 'masked' / '.masks'}" in capsys.readouterr().out
    plain, masked = contents(tmp_path / "plain"), contents(tmp_path / "masked")
    assert {name: data for name, data in masked.items() if not name.startswith(".masks/")} == plain
    assert any(name.startswith(".masks/") for name in masked)
    assert contents(tmp_path / "again") == masked


def test_an_index_passes_over_masks(cohort: Path, tmp_path: Path) -> None:
    assert main(["index", str(cohort), "--out", str(tmp_path / "m.csv")]) == 0
    assert len(pd.read_csv(tmp_path / "m.csv")) == 5


def test_masks_name_what_truth_says_and_have_its_volume(cohort: Path) -> None:
    truth = pd.read_csv(cohort / "truth.csv")
    assert truth["label:IPH"].any()
    for row in truth.itertuples():
        masks = masks_of(cohort / ".masks", row.path)
        assert ("IPH" in masks, "SDH" in masks) == (row.IPH_ml > 0, row.SDH_mm > 0)
        assert ("ICH" in masks) == (row.IPH_ml > 0 or row.SDH_mm > 0)
        images = {name: nib.load(path) for name, path in masks.items()}
        inside = {name: np.asarray(image.dataobj) > 0 for name, image in images.items()}
        if row.IPH_ml > 0:
            voxel_ml = abs(np.linalg.det(images["IPH"].affine[:3, :3])) / 1000
            assert inside["IPH"].sum() * voxel_ml == pytest.approx(row.IPH_ml, rel=0.15)
        bleeds = [inside[name] for name in ("IPH", "SDH") if name in inside]
        if bleeds:
            assert (inside["ICH"] == np.any(bleeds, axis=0)).all()


def test_masks_of_files_are_on_their_voxels_where_blood_is_bright(cohort: Path) -> None:
    truth = pd.read_csv(cohort / "truth.csv")
    files = truth[(truth["format"] == "nifti") & (truth["label:IPH"] == 1)]
    assert len(files)
    for path in files["path"]:
        mask = nib.load(masks_of(cohort / ".masks", path)["IPH"])
        np.testing.assert_allclose(mask.affine, grid_of_file(cohort / path).affine_ras, atol=1e-4)
        hu = np.asarray(nib.load(cohort / path).dataobj)
        inside = np.asarray(mask.dataobj) > 0
        assert 45 < np.median(hu[inside]) < 80
        assert np.median(hu[np.roll(inside, 12, axis=0)]) < 40


def test_masks_of_series_are_right_in_the_world_even_if_slices_are_uneven(tmp_path: Path) -> None:
    """In the preprocessed volume blood is bright where the mask comes to lie, and brain isn't on the other side."""
    out = tmp_path / "c"
    arguments = ["--pixel-mm", "2", "--sites", "3", "-n", "6", "--prevalence", "1", "--format", "dicom", "--masks"]
    arguments += ["--findings", "core"]
    assert main(["phantom", "--out", str(out), *arguments]) == 0
    truth = pd.read_csv(out / "truth.csv")
    settings = IsotropicSettings(spacing_mm=3.0, shape_voxels=72)
    uneven = 0
    for row in truth[truth["label:IPH"] == 1].itertuples():
        (scan,) = of_disk([out / row.path], settings, parse_rules([], ()))
        assert isinstance(scan, FoundScan)
        uneven += scan.own_grid is None
        marked = mask_on(masks_of(out / ".masks", row.path)["IPH"], VoxelGrid.of_volume(scan.volume))
        hu = scan.volume.voxels
        assert 45 < np.median(hu[marked]) < 80
        assert np.median(hu[marked[:, :, ::-1]]) < 40
    assert uneven
