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
from fmct.models.attention_maps import AttentionMaps
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


def planted(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """64 heads of 12 places, half of them with a lesion: (64, 12, 2 * 8) tokens, labels and where the lesion is."""
    places = torch.randn(12, 8, generator=generator)
    own = places + 0.3 * torch.randn(64, 12, 8, generator=generator)
    where = torch.randint(0, 12, (64,), generator=generator)
    labels = (torch.arange(64) % 2).float()
    own[torch.arange(64), where, 0] += 2 * labels
    mirrored = own.flip(1) - places.flip(0) + places  # place k is opposite place 11 - k, in a token of its own place
    return torch.cat([own, mirrored], -1), labels, where


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_mirrored_query_looks_at_the_lesion_and_not_at_the_place_opposite(seed: int) -> None:
    torch.manual_seed(seed)
    head = AttentiveHeadConfig(heads=2, mirror=True).build(8, 1)
    tokens, labels, where = planted(torch.Generator().manual_seed(seed))
    optimizer = torch.optim.AdamW(head.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(head(tokens)[:, 0], labels).backward()
        optimizer.step()
    with AttentionMaps() as maps:
        logits = head.eval()(tokens)[:, 0]
    assert logits[labels == 1].min() > logits[labels == 0].max()
    looks = maps.kept[0].mean(1)[:, 0]
    rows = torch.nonzero(labels)[:, 0]
    assert (looks[rows, where[rows]] > looks[rows, 11 - where[rows]]).float().mean() > 0.9


@pytest.mark.parametrize("mode", ["linear", "attentive"])
def test_a_head_on_whole_scans_is_validated_as_it_is_packaged(tiny: TinyCohort, tmp_path: Path, mode: str) -> None:
    flags = [
        *("--data.manifest", str(tiny.manifest), "--data.cache", str(tiny.cache), "--input.voxels", "24"),
        *("--trainer.runs", str(tmp_path), "--backbone.depth", "2", "--backbone.width", "48"),
        *("--task.mode", mode, "--task.views", "whole", "--trainer.max_steps", "6", "--optimizer.lr", "0.01"),
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
