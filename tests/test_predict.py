"""`fmct predict`: the probabilities that `fmct evaluate` has, maps as files, and what can't be done is said."""

from __future__ import annotations

import io
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TinyCohort
from PIL import Image

import fmct
from fmct.cli import main
from fmct.data.presets import IsotropicSettings
from fmct.evaluate import predict as evaluated
from fmct.models.cnn import ResNetConfig
from fmct.models.heads import LinearHeadConfig
from fmct.models.packaged import PackageConfig, PackagedModel, load_package, save_package
from fmct.models.vit3d import ViT3DConfig
from fmct.views.network_input import InputConfig

TRANSFORMER = ViT3DConfig(width=24, depth=2, heads=2, patch_voxels=6, registers=2)
CONVOLUTIONS = ResNetConfig(depth=10, widen=0.125)


def package(
    folder: Path, backbone: ViT3DConfig | ResNetConfig = TRANSFORMER, labels: tuple[str, ...] = ("ICH", "MidlineShift")
) -> Path:
    torch.manual_seed(0)
    config = PackageConfig(
        name="tiny",
        task="classifier" if labels else "mae",
        fmct_version=fmct.__version__,
        steps=3,
        backbone=backbone,
        input=InputConfig(voxels=24),
        preprocessing=IsotropicSettings(spacing_mm=9.0, shape_voxels=24),
        head=LinearHeadConfig() if labels else None,
        labels=labels,
    )
    model = PackagedModel(config)
    if model.head is not None:
        model.head.linear.weight.mul_(100)  # type: ignore[union-attr]
    return save_package(folder, model, "# tiny\n")


def head_nifti(path: Path) -> Path:
    z, y, x = np.mgrid[-100:101:4, -100:101:4, -100:101:4]
    radius = np.sqrt(x**2 + y**2 + z**2)
    hu = np.select([radius < 72, radius < 82, radius < 90], [30, 1000, 20], -1000)
    hu += np.where((x - 30) ** 2 + y**2 + z**2 < 20**2, 40, 0) + np.random.default_rng(0).integers(-9, 9, hu.shape)
    nib.save(nib.Nifti1Image(hu.transpose(2, 1, 0).astype(np.int16), np.diag([4.0, 4.0, 4.0, 1.0])), path)
    return path


def some(tiny: TinyCohort, folder: Path, count: int) -> Path:
    """A manifest of the cohort's first scans with ICH."""
    frame = pd.read_csv(tiny.manifest, dtype=str)
    frame[frame["label:ICH"] == "1"].head(count).to_csv(folder / "some.csv", index=False)
    return folder / "some.csv"


def predict(*arguments: str | Path) -> int:
    return main(["predict", *map(str, arguments)])


def test_probabilities_are_those_of_evaluate(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fmct.data.dataset import ScanDataset
    from fmct.data.manifest import read_manifest
    from fmct.data.volumes import VolumeCache

    weights = package(tmp_path / "w")
    assert predict(tiny.manifest, "--cache", tiny.cache, "--weights", weights, "--out", tmp_path / "p") == 0
    printed = capsys.readouterr().out
    assert "wrote 48 probabilities of 24 scans" in printed
    assert "no diagnosis" in printed
    frame = pd.read_csv(tmp_path / "p" / "probabilities.csv")
    assert list(frame) == ["scan_id", "path", "label", "probability"]
    assert frame["path"][0] == "scan000.nii.gz"
    dataset = ScanDataset(read_manifest(tiny.manifest), VolumeCache.open(tiny.cache), ["ICH", "MidlineShift"])
    expected = evaluated(load_package(weights), dataset, batch_size=5, workers=0)
    both = frame.merge(expected, on=["scan_id", "label"], validate="1:1")
    assert len(both) == 48
    np.testing.assert_allclose(both["probability_x"], both["probability_y"], atol=1e-6)
    assert both["probability_x"].std() > 1e-3
    assert (
        predict(tiny.cache, "--weights", weights, "--out", tmp_path / "q", "--table", "parquet", "--labels", "ICH") == 0
    )
    of_cache = pd.read_parquet(tmp_path / "q" / "probabilities.parquet")
    assert set(of_cache["label"]) == {"ICH"}
    pd.testing.assert_series_equal(
        of_cache.set_index("scan_id")["probability"].sort_index(),
        frame[frame["label"] == "ICH"].set_index("scan_id")["probability"].sort_index(),
    )


def test_maps_of_a_file_lie_on_its_own_voxels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, scan = package(tmp_path / "w"), head_nifti(tmp_path / "head.nii.gz")
    kinds = "rollout,heads,relevance,pca"
    assert predict(scan, "--weights", weights, "--out", tmp_path / "p", "--maps", kinds, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["maps"] == 5
    assert said["failures"] == []
    assert "no diagnosis" in said["research_use"]
    (folder,) = (tmp_path / "p" / "maps").iterdir()
    assert folder.name == said["probabilities"][0]["scan_id"]
    names = {"rollout", "heads", "relevance-ICH", "relevance-MidlineShift", "pca"}
    assert {path.name for path in folder.iterdir()} == {f"{n}.nii.gz" for n in names} | {f"{n}.png" for n in names}
    own = nib.load(scan)
    for name in names - {"heads", "pca"}:
        image = nib.load(folder / f"{name}.nii.gz")
        assert image.shape == own.shape
        np.testing.assert_allclose(image.affine, own.affine)
        assert image.get_fdata().max() > 0
    assert nib.load(folder / "heads.nii.gz").shape == (24, 24, 24, 2)
    assert nib.load(folder / "pca.nii.gz").shape == (24, 24, 24, 3)
    for name in names:
        picture = np.asarray(Image.open(io.BytesIO((folder / f"{name}.png").read_bytes())).convert("RGB")).astype(int)
        assert (np.ptp(picture, axis=2) > 30).mean() > 0.02  # colors are laid over the gray
    assert predict(scan, "--weights", weights, "--out", tmp_path / "v", "--maps", "rollout", "--grid", "volume") == 0
    assert nib.load(next((tmp_path / "v" / "maps").glob("*/rollout.nii.gz"))).shape == (24, 24, 24)


def test_layercam_of_a_resnet_follows_what_raises_the_logit(tiny: TinyCohort, tmp_path: Path) -> None:
    weights = package(tmp_path / "w", CONVOLUTIONS)
    out = tmp_path / "p"
    scans = [some(tiny, tmp_path, 1), "--cache", tiny.cache]
    assert predict(*scans, "--weights", weights, "--out", out, "--maps", "layercam", "--labels", "ICH") == 0
    image = nib.load(out / "maps" / "scan001" / "layercam-ICH.nii.gz")
    values = image.get_fdata()
    assert values.shape == (24, 24, 24)
    assert values.min() >= 0
    assert values.max() == pytest.approx(1, abs=0.2)  # each stage is scaled to 1, then interpolated
    np.testing.assert_allclose(image.affine, np.diag([9.0, 9.0, 9.0, 1.0]))


def test_hit_rates_are_written_for_scans_with_masks(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, masks = package(tmp_path / "w"), tmp_path / "masks"
    point = np.zeros((24, 24, 24), np.uint8)
    point[5, 12, 11] = 1  # x, y, z: within the cohort's bleeds
    for number in range(1, 12, 2):
        folder = masks / f"scan{number:03d}"
        folder.mkdir(parents=True)
        nib.save(nib.Nifti1Image(point, np.diag([9.0, 9.0, 9.0, 1.0])), folder / "ICH.nii.gz")
    more = ["--maps", "relevance,rollout", "--masks", str(masks), "--grid", "volume"]
    scans = [some(tiny, tmp_path, 7), "--cache", tiny.cache]  # one without a mask
    assert predict(*scans, "--weights", weights, "--out", tmp_path / "p", *more) == 0
    assert "relevance-ICH on ICH" in capsys.readouterr().out
    said = json.loads((tmp_path / "p" / "hit_rate.json").read_text())
    assert [(one["map"], one["n_scans"], one["n_patients"]) for one in said["hit_rates"]] == [
        ("relevance-ICH", 6, 6),
        ("rollout", 6, 6),
    ]
    for one in said["hit_rates"]:
        assert one["ratio_ci"][0] <= one["ratio"] <= one["ratio_ci"][1]
    assert len(said["scans"]) == 12
    z, y, x = np.mgrid[:24, :24, :24]
    head = (z - 11.5) ** 2 + (y - 11.5) ** 2 + (x - 11.5) ** 2 <= (24 * 0.45) ** 2
    near = (z - 11) ** 2 + (y - 12) ** 2 + (x - 5) ** 2 <= 6**2  # one patch around the point
    assert said["scans"][0]["chance"] == pytest.approx((near & head).sum() / head.sum())
    empty = tmp_path / "nothing"
    empty.mkdir()
    arguments = ["--weights", weights, "--out", tmp_path / "q", "--maps", "rollout", "--masks", empty]
    assert predict(some(tiny, tmp_path, 1), "--cache", tiny.cache, *arguments) == 2
    assert "no scan has a mask" in capsys.readouterr().err


def test_what_cannot_be_read_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, good = package(tmp_path / "w"), head_nifti(tmp_path / "good.nii.gz")
    bad = tmp_path / "bad.nii.gz"
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), 100, np.int16), np.diag([8.0, 8, 8, 1])), bad)
    assert predict(good, bad, "--weights", weights, "--out", tmp_path / "p", "--json") == 3
    captured = capsys.readouterr()
    assert "not predicted" in captured.err
    assert "IMPLAUSIBLE_HU" in json.loads(captured.out)["failures"][0]["what"]
    assert predict(bad, "--weights", weights, "--out", tmp_path / "q") == 2
    assert "no scan could be predicted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--maps", "rolout"], "did you mean rollout?"),
        (["--maps", "layercam"], "these weights give: rollout, heads, relevance, pca"),
        (["--labels", "IC"], "did you mean ICH?"),
        (["--masks", "."], "add --maps relevance"),
        (["--masks", "gone", "--maps", "rollout"], "the folder of masks doesn't exist"),
    ],
)
def test_wrong_wishes_are_refused(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    weights = package(tmp_path / "w")
    assert predict(tiny.cache, "--weights", weights, "--out", tmp_path / "p", *arguments) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_weights_without_a_head_give_maps_that_need_none(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = package(tmp_path / "w", labels=())
    assert predict(tiny.cache, "--weights", weights, "--out", tmp_path / "p") == 2
    assert "no classification head" in capsys.readouterr().err
    assert predict(tiny.cache, "--weights", weights, "--out", tmp_path / "p", "--maps", "relevance") == 2
    assert "no head, so no label" in capsys.readouterr().err
    scans = [some(tiny, tmp_path, 1), "--cache", tiny.cache]
    assert predict(*scans, "--weights", weights, "--out", tmp_path / "p", "--maps", "rollout") == 0
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["maps"]
