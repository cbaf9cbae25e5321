"""MONAI's ResNets as backbones: the same numbers, and everything around them works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TinyCohort, make_cohort
from monai.networks.nets import resnet18, resnet50
from safetensors.torch import load_file
from torch import nn

import fmct
from fmct.console.errors import UsageError
from fmct.embed import Embed
from fmct.evaluate import Evaluate
from fmct.experiment.loading import load_experiment
from fmct.fit import fit
from fmct.models.cnn import ResNet, ResNetConfig

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
OVERLAY = EXPERIMENTS / "overlays" / "smoke_resnet.yaml"


def tiny_net(**changes: object) -> ResNet:
    torch.manual_seed(0)
    return ResNetConfig.model_validate({"depth": 10, "widen": 0.125} | changes).build(2, 32)


@pytest.mark.parametrize(("depth", "theirs", "width"), [(18, resnet18, 512), (50, resnet50, 2048)])
def test_it_is_monais_network(depth: int, theirs: object, width: int) -> None:
    with torch.device("meta"):
        whole = ResNetConfig(depth=depth).build(3, 96)  # type: ignore[arg-type]
        published = theirs(spatial_dims=3, n_input_channels=3, feed_forward=False)  # type: ignore[operator]
    assert whole.width == width
    assert {n: t.shape for n, t in whole.net.state_dict().items()} == {
        n: t.shape for n, t in published.state_dict().items()
    }


@pytest.mark.parametrize("stride", [1, 2])
def test_the_first_token_is_monais_output_and_the_others_its_feature_map(stride: int) -> None:
    model, x = tiny_net(stem_stride=stride).eval(), torch.rand(2, 2, 40, 32, 24)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.5, 1.5)
    tokens = model(x)
    torch.testing.assert_close(tokens[:, 0], model.net(x))
    places = {1: 3 * 2 * 2, 2: 2 * 1 * 1}[stride]
    assert tokens.shape == (2, 1 + places, model.width)
    torch.testing.assert_close(tokens[:, 1:].mean(1), tokens[:, 0])


def test_layers_are_the_stem_and_the_stages() -> None:
    model = tiny_net()
    layers = {name: model.layer_of(name) for name, _ in model.named_parameters()}
    assert model.layers == 5
    assert {name for name, layer in layers.items() if layer == 0} == {
        "net.conv1.weight",
        "net.bn1.weight",
        "net.bn1.bias",
    }
    assert all(layer == int(name[len("net.layer")]) for name, layer in layers.items() if layer)
    assert set(layers.values()) == {0, 1, 2, 3, 4}


def flags(cohort: TinyCohort, runs: Path, *more: str) -> list[str]:
    where = ("--data.manifest", str(cohort.manifest), "--data.cache", str(cohort.cache), "--trainer.runs", str(runs))
    return [*where, "--input.voxels", "24", *more]


NETWORK = (
    "kind: vit3d, width: 96, depth: 3, heads: 4, patch_voxels: 8, registers: 2",
    "kind: resnet, depth: 10, widen: 0.125",
)


def experiment_file(name: str, folder: Path) -> Path:
    text = (EXPERIMENTS / f"{name}.yaml").read_text()
    assert NETWORK[0] in text
    path = folder / f"{name}.yaml"
    path.write_text(text.replace(*NETWORK))
    return path


@pytest.fixture(scope="module")
def classified(tiny: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the classifier from random weights."""
    folder = tmp_path_factory.mktemp("resnet")
    more = ("--task.mode", "scratch", "--task.weights", "null", "--trainer.max_steps", "3")
    return fit(load_experiment([experiment_file("classify_smoke", folder)], flags(tiny, folder, *more)))


def test_a_run_is_packaged_with_its_running_statistics_embedded_and_evaluated(
    classified: Path, tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(classified / "weights" / "model.safetensors")
    assert tensors["backbone.net.bn1.num_batches_tracked"].item() == 3
    assert tensors["backbone.net.layer4.0.bn2.running_mean"].any()
    model = fmct.load(classified)
    assert model.tokens(torch.rand(1, 3, 24, 24, 24)).shape == (1, 1 + 8, 64)
    table = tmp_path / "features.parquet"
    assert Embed(inputs=[tiny.cache], weights=classified, out=table).run() == 0
    assert len(pd.read_parquet(table)) == 24
    assert Evaluate(run_folder=classified, data=tiny.manifest, cache=tiny.cache).run() == 0
    assert "AUROC" in capsys.readouterr().out


def test_a_linear_probe_leaves_running_statistics_alone(classified: Path, tiny: TinyCohort, tmp_path: Path) -> None:
    more = ("--task.weights", str(classified), "--task.mode", "linear", "--trainer.max_steps", "2")
    probe = fit(load_experiment([experiment_file("classify_smoke", tmp_path)], flags(tiny, tmp_path, *more)))
    before, after = (load_file(run / "weights" / "model.safetensors") for run in (classified, probe))
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("backbone."))
    assert not torch.equal(before["head.linear.weight"], after["head.linear.weight"])


def test_self_distillation_takes_it_and_masked_modelling_says_why_not(tiny: TinyCohort, tmp_path: Path) -> None:
    dino = flags(
        tiny, tmp_path, "--task.local_voxels", "17", "--trainer.max_steps", "2"
    )  # no patches: any size will do
    run = fit(load_experiment([experiment_file("pretrain_dino_smoke", tmp_path)], dino))
    assert np.isfinite(pd.read_csv(run / "metrics.csv")["train/loss"].dropna()).all()
    with pytest.raises(UsageError, match="vit3d"):
        fit(load_experiment([experiment_file("pretrain_mae_smoke", tmp_path)], flags(tiny, tmp_path)))


def test_the_full_size_experiment_takes_two_steps_under_its_overlay(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path)
    frame = pd.read_csv(cohort.manifest, dtype=str)
    files = [EXPERIMENTS / "classify_cq500_resnet.yaml", OVERLAY]
    for number, label in enumerate(load_experiment(files).labels):
        frame[f"label:{label}"] = [(row + number) % 2 for row in range(len(frame))]
    frame.to_csv(cohort.manifest, index=False)
    run = fit(load_experiment(files, flags(cohort, tmp_path / "runs")))
    assert (run / "weights" / "model.safetensors").exists()
