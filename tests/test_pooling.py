"""What stands for a scan: pooled over patches, registers left out; the same from a package, a command and a head."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TinyCohort

from fmct.cli import main
from fmct.data.presets import IsotropicSettings
from fmct.data.volumes import VolumeCache
from fmct.embed import Embed
from fmct.models.cnn import ResNetConfig
from fmct.models.heads import LinearHeadConfig
from fmct.models.packaged import PackageConfig, PackagedModel, as_batch, load_package, save_package
from fmct.models.pooling import MOST_ASYMMETRIC, encode, pooled, prefix_tokens_of
from fmct.models.pooling_kinds import Pooling
from fmct.models.vit3d import ViT3DConfig
from fmct.views.network_input import InputConfig

pytestmark = pytest.mark.usefixtures("one_thread")
POOLINGS: tuple[Pooling, ...] = ("cls", "mean", "max", "mean+max", "mean+std", "mean+std+mirror")


def package(folder: Path, pooling: Pooling = "cls") -> PackagedModel:
    torch.manual_seed(0)
    config = PackageConfig(
        **{"name": "tiny", "task": "classifier", "fmct_version": "0", "steps": 0, "labels": ("ICH", "SDH")},
        backbone=ViT3DConfig(width=48, depth=2, heads=4, patch_voxels=8, registers=2),
        input=InputConfig(voxels=24),
        preprocessing=IsotropicSettings(spacing_mm=9.0, shape_voxels=24),
        head=LinearHeadConfig(pooling=pooling),
    )
    return load_package(save_package(folder, PackagedModel(config), "# tiny\n"))


def by_hand(tokens: torch.Tensor, mirrored: torch.Tensor, pooling: Pooling) -> np.ndarray:
    patches = tokens[0, 3:].numpy().astype(np.float64)  # after CLS and two registers
    parts = {"cls": [tokens[0, 0].numpy()], "mean": [patches.mean(0)], "max": [patches.max(0)]}
    parts |= {"mean+max": parts["mean"] + parts["max"], "mean+std": [*parts["mean"], patches.std(0)]}
    apart = np.sort(np.abs(patches - mirrored[0, 3:].numpy()), 0)
    parts["mean+std+mirror"] = [*parts["mean+std"], apart.mean(0), apart[-MOST_ASYMMETRIC:].mean(0)]
    return np.concatenate(parts[pooling])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_follows_numpy_from_package_to_table(tiny: TinyCohort, tmp_path: Path, pooling: Pooling) -> None:
    model = package(tmp_path / "w", pooling)
    assert model.head is not None
    voxels = VolumeCache.open(tiny.cache).read("scan003")
    seen = model.input.whole(as_batch(voxels))
    expected = by_hand(model.tokens(seen), model.tokens(torch.from_numpy(seen.numpy()[..., ::-1].copy())), pooling)
    np.testing.assert_allclose(model.features(as_batch(voxels), pooling)[0].numpy(), expected, atol=1e-5)
    weight, bias = model.head.linear.weight.numpy(), model.head.linear.bias.numpy()
    logits = expected / np.sqrt(1 + 1e-6) @ weight.T + bias  # the batch norm has seen nothing yet
    np.testing.assert_allclose(model.probabilities(as_batch(voxels))[0].numpy(), 1 / (1 + np.exp(-logits)), atol=1e-5)
    table = tmp_path / "features.parquet"
    assert Embed(inputs=[tiny.cache], weights=tmp_path / "w", out=table, pooling=pooling).run() == 0
    row = pd.read_parquet(table).set_index("scan_id").loc["scan003"]
    assert row.index.tolist() == [f"e{i:04d}" for i in range(len(expected))]
    assert np.array_equal(row.to_numpy(np.float32), model.features(as_batch(voxels), pooling)[0].numpy())


def test_a_convolutional_network_has_no_registers() -> None:
    backbone = ResNetConfig(depth=10, widen=0.125).build(1, 32).eval()
    tokens = backbone(torch.rand(2, 1, 32, 32, 32))
    torch.testing.assert_close(pooled(tokens, "mean", prefix_tokens_of(backbone)), tokens[:, 0])


def test_of_a_symmetric_scan_no_asymmetry_is_left_and_sides_are_alike(tmp_path: Path) -> None:
    backbone = package(tmp_path / "w").backbone
    x = torch.rand(1, 3, 24, 24, 24)
    features = [
        pooled(encode(backbone, scan, mirrored=True), "mean+std+mirror", 3)[0, 96:]
        for scan in (torch.maximum(x, x.flip(-1)), x, x.flip(-1))
    ]
    assert features[0].abs().max() < 1e-5
    assert features[1].min() > 0.01
    torch.testing.assert_close(features[1], features[2])


@pytest.mark.parametrize("pooling", ["mean", "mean+std+mirror"])
def test_a_scan_has_the_same_bits_in_any_batch(tiny: TinyCohort, tmp_path: Path, pooling: Pooling) -> None:
    model = package(tmp_path / "w", pooling)
    assert model.head is not None
    model.head.linear.weight.mul_(50)  # or sigmoid rounds the last bits of small logits away
    cache = VolumeCache.open(tiny.cache)
    volumes = torch.cat([as_batch(cache.read(f"scan{number:03d}")) for number in range(11)])
    for of in (model.probabilities, partial(model.features, pooling=pooling)):
        whole = of(volumes)
        assert torch.equal(torch.cat([of(volumes[row : row + 1]) for row in range(11)]), whole)
        for mates in ([3, 0], [10, 3], [7, 1, 3, 5, 2], [*range(8)]):
            assert torch.equal(of(volumes[mates]), whole[mates])


def test_another_pooling_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", str(tmp_path), "--weights", "w", "--out", "x.parquet", "--pooling", "median"]) == 2
    error = capsys.readouterr().err
    assert "mean+max" in error
    assert len(error.strip().splitlines()) == 3
