"""What a cache of the preset `fmhct` is good for: published weights embed and adapt on it; what needs HU says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import fmct
from fmct.cli import main
from fmct.console.errors import UsageError
from fmct.data.presets import FmhctSettings
from fmct.data.volumes import VolumeCache
from fmct.models.reference import load_reference
from fmct.models.reference_axes import reordered
from fmct.models.vit3d import ViT3DConfig
from fmct.views.crops import identity
from fmct.views.network_input import InputConfig
from fmct.views.windows import BRAIN

SIDE = 48


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six phantoms (`scans`), their manifest and their cache of windows, 48 voxels a side."""
    folder = tmp_path_factory.mktemp("cohort")
    sizes = ["--pixel-mm", "3", "--slice-mm", "5", "--sites", "1"]
    assert main(["phantom", "-n", "6", "--out", str(folder / "scans"), *sizes]) == 0
    manifest = str(folder / "manifest.csv")
    assert main(["index", str(folder / "scans"), "--out", manifest, "--key-file", str(folder / "key")]) == 0
    assert main(preprocess_arguments(folder)) == 0
    frame = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    frame["split"] = ["train"] * 4 + ["val"] * 2
    frame["label:ICH"] = ["0", "1"] * 3
    frame.to_csv(manifest, index=False)
    return folder


def preprocess_arguments(folder: Path, *more: str) -> list[str]:
    arguments = ["preprocess", str(folder / "manifest.csv"), "--preset", "fmhct"]
    return [*arguments, "--cache", str(folder / "cache"), "--shape-voxels", str(SIDE), *more]


@pytest.fixture(scope="module")
def weights(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny published checkpoint as a package."""
    folder = tmp_path_factory.mktemp("weights") / "package"
    checkpoint = shared / "golden" / "reference_dino_checkpoint.pt"
    assert main(["import-reference", str(checkpoint), "--heads", "4", "--out", str(folder)]) == 0
    return folder


def test_the_cache_holds_windows(cohort: Path) -> None:
    cache = VolumeCache.open(cohort / "cache")
    assert cache.settings == FmhctSettings(shape_voxels=SIDE)
    assert len(cache) == 6
    for scan_id in cache.index.index:
        voxels = cache.read(scan_id)
        assert (voxels.shape, voxels.dtype) == ((3, SIDE, SIDE, SIDE), np.float16)
        assert (voxels.min(), voxels.max()) == (0, 1)
        cache.verify(scan_id)
    settings = json.loads((cache.folder / "settings.json").read_text())
    assert settings["settings"]["preset"] == "fmhct"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--spacing-mm", "1.5"], "the preset fmhct has no --spacing-mm"),
        (["--no-head-crop"], "the preset fmhct has no --head-crop"),
        (["--preset", "isotropic", "--channels", "3"], "the preset isotropic has no --channels"),
        (["--channels", "2"], "channels"),
        (["--preset", "fmhtc"], "preset"),
    ],
)
def test_flags_of_another_preset_are_refused(
    cohort: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main(preprocess_arguments(cohort, *flags)) == 2
    assert message in capsys.readouterr().err


def test_published_weights_embed_from_disk_manifest_and_cache_alike(
    cohort: Path, weights: Path, tmp_path: Path
) -> None:
    manifest = str(cohort / "manifest.csv")
    inputs = {
        "disk": [str(cohort / "scans")],
        "manifest": [manifest],
        "cached": [manifest, "--cache", str(cohort / "cache")],
        "cache": [str(cohort / "cache")],
    }
    frames = []
    for name, arguments in inputs.items():
        out = tmp_path / f"{name}.parquet"
        assert main(["embed", *arguments, "--weights", str(weights), "--out", str(out)]) == 0
        frames.append(pd.read_parquet(out).set_index("scan_id").sort_index())
    assert frames[0].shape == (6, 48)
    assert frames[0].std().mean() > 0
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0], atol=1e-5)
    row = pd.read_csv(manifest, dtype=str).iloc[0]
    one = fmct.load(weights).embed(cohort / row["path"])
    np.testing.assert_allclose(one, frames[0].loc[row["scan_id"]], atol=1e-5)


def experiment(folder: Path, cohort: Path, task: dict[str, Any], **sections: Any) -> list[str]:
    backbone = {"kind": "vit3d", "width": 48, "depth": 2, "heads": 4, "patch_voxels": 12, "registers": 4}
    values = {
        "name": "probe",
        "task": task,
        "backbone": backbone,
        "input": {"voxels": SIDE},
        "data": {"manifest": str(cohort / "manifest.csv"), "cache": str(cohort / "cache"), "batch_size": 2}
        | ({"val_splits": []} if task["kind"] == "dino" else {}),
        "optimizer": {"lr": 1e-3},
        "trainer": {"max_steps": 2, "accelerator": "cpu", "runs": str(folder / "runs")},
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(values | sections))
    return ["fit", "--config", str(path)]


def test_a_linear_probe_of_published_weights_trains(cohort: Path, weights: Path, tmp_path: Path) -> None:
    config = fmct.load(weights).config
    task = {"kind": "classifier", "labels": ["ICH"], "mode": "linear", "weights": str(weights)}
    backbone = config.backbone.model_dump(mode="json")
    assert main(experiment(tmp_path, cohort, task, backbone=backbone)) == 0
    trained = fmct.load(tmp_path / "runs" / "probe")
    assert trained.config.preprocessing == FmhctSettings(shape_voxels=SIDE)
    assert trained.config.steps == 2
    for name, tensor in fmct.load(weights).backbone.state_dict().items():
        assert torch.equal(trained.backbone.state_dict()[name], tensor), name
    cache = VolumeCache.open(cohort / "cache")
    volumes = torch.from_numpy(np.stack([cache.read(str(scan_id)) for scan_id in cache.index.index]))
    assert trained.probabilities(volumes).shape == (6, 1)


@pytest.mark.parametrize("task", [{"kind": "mae", "decoder": {"width": 24, "depth": 1, "heads": 2}}, {"kind": "dino"}])
def test_pretraining_runs_on_windows(cohort: Path, tmp_path: Path, task: dict[str, Any]) -> None:
    sizes = {"local_voxels": 24, "head": {"hidden": 32, "bottleneck": 16, "prototypes": 64}}
    assert main(experiment(tmp_path, cohort, task | (sizes if task["kind"] == "dino" else {}))) == 0
    assert (tmp_path / "runs" / "probe" / "weights" / "config.json").exists()


def test_other_windows_than_the_caches_are_refused(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"kind": "classifier", "mode": "scratch", "labels": ["ICH"]}
    windows = [{"level_hu": 40, "width_hu": 80}]
    assert main(experiment(tmp_path, cohort, task, input={"voxels": SIDE, "windows": windows})) == 2
    error = capsys.readouterr().err
    assert "made with the windows 40/80, 80/200, 600/2800, and the network's are 40/80" in error


@pytest.mark.parametrize("command", ["qc", "split"])
def test_what_needs_hu_says_so(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    arguments = {
        "qc": ["qc", str(cohort / "cache"), "--out", str(tmp_path / "qc.html")],
        "split": ["split", str(cohort / "manifest.csv"), "--check", "--cache", str(cohort / "cache")],
    }
    assert main(arguments[command]) == 2
    assert "display windows, not HU" in capsys.readouterr().err


def test_windowed_volumes_pass_through_as_they_are() -> None:
    config = InputConfig(voxels=24)
    volumes = torch.rand(2, 3, 24, 24, 24).half()
    assert torch.equal(config.whole(volumes), volumes.float())
    torch.testing.assert_close(config.sampled(volumes, identity(2)), volumes.float(), atol=1e-5, rtol=0)
    halved = InputConfig(voxels=12).whole(volumes)
    expected = volumes.float().flatten(0, 1)
    for _ in range(3):  # torch knows two axes; turn them until all had their turn
        sides = (12, expected.shape[3])
        expected = torch.nn.functional.interpolate(expected, sides, mode="bilinear", antialias=True).permute(0, 3, 1, 2)
    torch.testing.assert_close(halved.flatten(0, 1), expected, atol=1e-5, rtol=0)
    shifted = torch.tensor([[[-1.0, 1.0], [-1.0, 1.0], [0.0, 2.0]]] * 2)  # half lies beyond the volume's right side
    view = config.sampled(volumes, identity(2), boxes=shifted)
    torch.testing.assert_close(view[..., :12], volumes[..., 12:].float(), atol=1e-5, rtol=0)
    assert view[..., 12:].max() < 1e-5
    with pytest.raises(UsageError, match="hold 3 windows, and the network takes 1"):
        InputConfig(voxels=24, windows=(BRAIN,)).whole(volumes)


def test_turning_axes_keeps_the_function() -> None:
    torch.manual_seed(0)
    config = ViT3DConfig(width=24, depth=1, heads=2, patch_voxels=(2, 3, 4), registers=1)
    published = config.build(3, (4, 9, 16)).eval()
    torch.nn.init.normal_(published.positions)
    turned = reordered(published)
    assert (turned.patch_zyx, turned.grid_zyx) == ((4, 3, 2), (4, 3, 2))
    assert not turned.training
    x = torch.rand(2, 3, 4, 9, 16)
    expected, tokens = published(x), turned(x.permute(0, 1, 4, 3, 2))
    torch.testing.assert_close(tokens[:, :2], expected[:, :2], atol=1e-5, rtol=0)
    patches = tokens[:, 2:].reshape(2, 4, 3, 2, 24).permute(0, 3, 2, 1, 4).flatten(1, 3)
    torch.testing.assert_close(patches, expected[:, 2:], atol=1e-5, rtol=0)
    assert not torch.allclose(patches, tokens[:, 2:])


def test_reference_heads_are_kept(shared: Path) -> None:
    imported = load_reference(shared / "golden" / "reference_dino_checkpoint.pt", heads=4).model
    assert reordered(imported).config == imported.config
