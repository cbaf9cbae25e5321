"""Scans shown whole to a frozen backbone: encoded once, by themselves, as evaluation does; heads that compare sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import TinyCohort
from random_packages import random_package
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import fmct
from fmct.data.volumes import VolumeCache
from fmct.experiment.loading import load_experiment
from fmct.fit import fit
from fmct.models.heads import AttentiveHeadConfig, LinearHeadConfig
from fmct.models.packaged import as_batch
from fmct.models.pooling import encode, pooled
from fmct.models.vit3d import ViT3DConfig
from fmct.tasks.encoded_once import EncodedOnce

pytestmark = pytest.mark.usefixtures("one_thread")
SMOKE = Path(__file__).resolve().parent.parent / "experiments" / "classify_smoke.yaml"
HEADS: dict[str, Any] = {
    "cls": LinearHeadConfig(),
    "mirror": LinearHeadConfig(pooling="mean+std+mirror"),
    "attentive": AttentiveHeadConfig(heads=2),
    "attentive-mirror": AttentiveHeadConfig(heads=2, mirror=True),
}


class Counted(nn.Module):
    """A backbone that counts what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = ViT3DConfig(width=24, depth=2, heads=2, patch_voxels=8, registers=1).build(1, 24).eval()
        self.shown = 0

    def forward(self, x: Tensor) -> Tensor:
        self.shown += len(x)
        tokens: Tensor = self.backbone(x)
        return tokens


@pytest.mark.parametrize("name", HEADS)
def test_what_is_kept_is_what_evaluation_sees(name: str) -> None:
    backbone = Counted()
    head = HEADS[name].build(24, 2, prefix_tokens=2).eval()
    volumes = torch.rand(3, 1, 24, 24, 24)
    once = EncodedOnce(backbone, head, lambda volume: volume)
    first = once(["a", "b", "c"], volumes, [False, True, False])
    shown = backbone.shown
    for row, turned in enumerate([False, True, False]):
        x = volumes[row : row + 1]
        tokens = encode(backbone.backbone, x.flip(-1) if turned else x, mirrored=head.mirrored)
        seen = pooled(tokens, head.pooling, 2) if isinstance(HEADS[name], LinearHeadConfig) else tokens
        torch.testing.assert_close(first[row], seen[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(head(first[row : row + 1]), head(tokens), atol=1e-4, rtol=1e-4)
    again = once(["c", "a"], volumes[[2, 0]], [False, False])
    assert torch.equal(again, first[[2, 0]])
    assert backbone.shown == shown
    assert not first.requires_grad


@pytest.mark.parametrize("mirrored", [False, True])
def test_tokens_do_not_depend_on_batch_mates(mirrored: bool) -> None:
    head = AttentiveHeadConfig(heads=2, mirror=mirrored).build(24, 1)
    volumes = torch.rand(5, 1, 24, 24, 24)
    together = EncodedOnce(Counted(), head, lambda volume: volume)(list("abcde"), volumes, [False] * 5)
    alone = EncodedOnce(Counted(), head, lambda volume: volume)
    for row, scan in enumerate("abcde"):
        assert torch.equal(alone([scan], volumes[row : row + 1], [False])[0], together[row])


def test_a_mirrored_query_reads_the_difference_of_sides() -> None:
    torch.manual_seed(0)
    head = AttentiveHeadConfig(heads=2, mirror=True).build(8, 1).eval()
    own, other = torch.randn(1, 5, 8), torch.randn(1, 5, 8)
    near, far = head(torch.cat([own, own + 0.1 * other], -1)), head(torch.cat([own, own - 0.1 * other], -1))
    torch.testing.assert_close(near, far)  # how far the sides are apart, not which way
    assert not torch.allclose(near, head(torch.cat([own, own], -1)), atol=1e-5)


@pytest.mark.parametrize("mode", ["linear", "attentive"])
def test_a_head_on_whole_scans_is_validated_as_it_is_packaged(tiny: TinyCohort, tmp_path: Path, mode: str) -> None:
    flags = [
        *("--data.manifest", str(tiny.manifest), "--data.cache", str(tiny.cache), "--input.voxels", "24"),
        *("--trainer.runs", str(tmp_path), "--backbone.depth", "2", "--backbone.width", "48"),
        *("--task.mode", mode, "--task.views", "whole", "--trainer.max_steps", "6", "--optimizer.lr", "0.05"),
        *("--task.crops.flip_probability", "0.5", "--trainer.pictures_every_steps", "3"),
    ]
    flags += ["--task.head", '{"pooling": "mean+std+mirror"}' if mode == "linear" else '{"heads": 4, "mirror": true}']
    package = random_package(load_experiment([SMOKE], flags), tiny.cache, tmp_path / "package")
    run = fit(load_experiment([SMOKE], [*flags, "--task.weights", str(package)]))
    before, after = (load_file(folder / "model.safetensors") for folder in (package, run / "weights"))
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    frame = pd.read_csv(tiny.manifest, dtype=str)
    val = frame[frame["split"] == "val"]
    model, cache = fmct.load(run), VolumeCache.open(tiny.cache)
    said = torch.cat([model.probabilities(as_batch(cache.read(scan))) for scan in val["scan_id"]])[:, 0]
    last = pd.read_csv(run / "metrics.csv")["val/auroc_ICH"].dropna().iloc[-1]
    assert last == pytest.approx(roc_auc_score(val["label:ICH"].astype(int), said.double()), abs=1e-12)
    assert said.std() > 1e-4
    assert json.loads((run / "weights" / "config.json").read_text())["head"]["kind"] == mode
    assert list((run / "pictures").glob("views_step*.png"))
