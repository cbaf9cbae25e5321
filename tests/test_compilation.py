"""Compiled blocks: the same numbers and names, and nothing compiled again for every block."""

from __future__ import annotations

import copy
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import TinyCohort
from safetensors.torch import load_file
from torch import nn

import fmct
from fmct.console.errors import UsageError
from fmct.experiment.compilation import compile_blocks
from fmct.experiment.loading import load_experiment
from fmct.experiment.trainer import TrainerConfig
from fmct.fit import fit
from fmct.models.cnn import ResNetConfig
from fmct.models.decoder import DecoderConfig
from fmct.models.vit3d import ViT3D, ViT3DConfig

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


def vit(depth: int = 3) -> ViT3D:
    torch.manual_seed(0)
    return ViT3DConfig(width=24, depth=depth, heads=2, patch_voxels=4, registers=1).build(1, 12)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Capture graphs as torch.compile does, but run them as they are, without a compiler; lists their sizes."""
    seen: list[int] = []

    def run_as_it_is(graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]) -> object:
        seen.append(len(graph.graph.nodes))
        return graph.forward

    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: original(module, backend=run_as_it_is))
    torch._dynamo.reset()
    return seen


def test_blocks_share_what_is_compiled_and_compute_the_same(graphs: list[int]) -> None:
    compiled, plain = vit(depth=6), vit(depth=6)
    compile_blocks(compiled)
    teacher = copy.deepcopy(compiled).requires_grad_(False)  # a copy is a plain one
    x, small = torch.rand(2, 1, 12, 12, 12), torch.rand(6, 1, 8, 8, 8)
    torch.testing.assert_close(compiled(x), plain(x))
    assert len(graphs) == 1
    torch.testing.assert_close(compiled(small), plain(small))
    assert len(graphs) == 2, "once more, for any size"
    torch.testing.assert_close(compiled(torch.rand(3, 1, 4, 8, 12)).shape, plain(torch.rand(3, 1, 4, 8, 12)).shape)
    assert len(graphs) == 2
    torch.testing.assert_close(teacher(x), plain(x))
    assert len(graphs) == 2


def test_names_stay(graphs: list[int]) -> None:
    model = vit()
    names = list(model.state_dict())
    compile_blocks(model)
    assert list(model.state_dict()) == names
    plain = vit()
    plain.load_state_dict(model.state_dict())


def test_what_has_blocks_is_compiled_by_blocks_and_what_has_none_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    encoder = vit()
    decoder = DecoderConfig(depth=2, width=12, heads=2).build(encoder, 1)
    resnet = ResNetConfig(depth=10, widen=0.125).build(1, 32)
    compile_blocks(nn.ModuleDict({"encoder": encoder, "decoder": decoder, "other": resnet, "head": nn.Linear(2, 2)}))
    assert compiled == [*encoder.blocks, *decoder.blocks, resnet]


def test_no_compiler_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="needs a C\\+\\+ compiler"):
        TrainerConfig(max_steps=1, compile=True).build(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pretrain_dino_smoke", "pretrain_mae_smoke"])
def test_a_compiled_run_learns_the_same(tiny: TinyCohort, tmp_path: Path, name: str) -> None:
    runs = []
    for compiled in ("false", "true"):
        flags = [
            *("--data.manifest", str(tiny.manifest), "--data.cache", str(tiny.cache), "--input.voxels", "24"),
            *("--trainer.runs", str(tmp_path / compiled), "--trainer.max_steps", "3", "--trainer.compile", compiled),
            *("--backbone.width", "24", "--backbone.positions", "rope", "--trainer.matmul_precision", "highest"),
            *(("--task.local_voxels", "16") if "dino" in name else ()),
        ]
        runs.append(fit(load_experiment([EXPERIMENTS / f"{name}.yaml"], flags)))
    losses = [pd.read_csv(run / "metrics.csv")["train/loss"].dropna().tolist() for run in runs]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    ours, theirs = (load_file(run / "weights" / "model.safetensors") for run in runs)
    for tensor in theirs:
        torch.testing.assert_close(ours[tensor], theirs[tensor], atol=1e-4, rtol=0)
    assert fmct.load(runs[1]).tokens(torch.rand(1, 3, 24, 24, 24)).isfinite().all()
