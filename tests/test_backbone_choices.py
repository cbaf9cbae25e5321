"""Sizes, positions, patches and layer scale from the experiment file to the weight package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TinyCohort
from torch import Tensor, nn

import fmct
from fmct.experiment.loading import as_record, completed, load_experiment
from fmct.experiment.optim import OptimizerConfig
from fmct.fit import fit
from fmct.tasks.base import Task

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
DINO = ("--task.local_voxels", "16", "--task.freeze_last_layer_epochs", "0")
CLASSIFIER = ("--task.mode", "scratch", "--task.weights", "null")
MODERN = ("--backbone.positions", "rope", "--backbone.layer_scale", "0.1")


def flags(cohort: TinyCohort, runs: Path, *more: str) -> list[str]:
    where = ("--data.manifest", str(cohort.manifest), "--data.cache", str(cohort.cache), "--trainer.runs", str(runs))
    return [*where, "--input.voxels", "24", "--trainer.pictures_every_steps", "0", *more]


def run(name: str, cohort: TinyCohort, runs: Path, *more: str, steps: int = 1) -> Path:
    limit = ("--trainer.max_steps", str(steps))
    return fit(load_experiment([EXPERIMENTS / f"{name}.yaml"], flags(cohort, runs, *limit, *more)))


CASES = {
    "mae": ("pretrain_mae_smoke", ()),
    "mae modern": ("pretrain_mae_smoke", MODERN),
    "dino": ("pretrain_dino_smoke", DINO),
    "dino modern": ("pretrain_dino_smoke", (*DINO, *MODERN, "--task.head.normalize_last_layer", "false")),
    "finetune": ("classify_smoke", CLASSIFIER),
    "attentive": ("classify_smoke", (*CLASSIFIER, *MODERN, "--task.head.kind", "attentive", "--task.head.heads", "4")),
    "linear": ("classify_smoke", ("--task.weights", "null", "--task.mode", "linear")),
}


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_that_may_learn_gets_a_gradient_and_only_weights_decay(
    case: str, tiny: TinyCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So DDP never has to look for unused ones."""
    without: set[str] = set()
    seen: dict[str, nn.Parameter] = {}
    decays: dict[int, float] = {}

    def look(task: Any) -> None:
        seen.update({name: p for name, p in task.named_parameters() if p.requires_grad})
        without.update({name for name, p in seen.items() if p.grad is None})
        groups = task.trainer.optimizers[0].param_groups
        decays.update({id(p): group["weight_decay"] for group in groups for p in group["params"]})

    monkeypatch.setattr(Task, "on_after_backward", look)
    name, more = CASES[case]
    run(name, tiny, tmp_path, *more)
    assert seen
    assert not without
    assert decays.keys() == {id(p) for p in seen.values()}, "the optimizer has them all, and no others"
    for parameter_name, parameter in seen.items():
        own = parameter_name.rpartition(".")[2]
        exempt = ("token" in own, own in {"positions", "bias", "query", "scale1", "scale2", "prototype_lengths"})
        is_norm = "norm" in parameter_name
        assert (decays[id(parameter)] == 0) == (any(exempt) or is_norm), parameter_name


@pytest.mark.parametrize(
    ("name", "more"), [("pretrain_mae_smoke", ()), ("pretrain_dino_smoke", DINO), ("classify_smoke", CLASSIFIER)]
)
def test_packages_hold_what_was_chosen(name: str, more: tuple[str, ...], tiny: TinyCohort, tmp_path: Path) -> None:
    patches = "[8,4,8]" if "dino" in name else "[12,8,6]"
    sizes = ("--backbone.patch_voxels", patches, "--backbone.size", "small", "--backbone.width", "36", *MODERN)
    file = tmp_path / f"{name}.yaml"
    text = (EXPERIMENTS / f"{name}.yaml").read_text()
    file.write_text(text.replace("width: 96, depth: 3, heads: 4, patch_voxels: 8, registers: 2", "registers: 1"))
    folder = fit(load_experiment([file], flags(tiny, tmp_path, "--trainer.max_steps", "1", *sizes, *more)))
    packaged = json.loads((folder / "weights" / "config.json").read_text())["backbone"]
    assert packaged == yaml.safe_load((folder / "experiment.yaml").read_text())["backbone"]
    assert (packaged["width"], packaged["depth"], packaged["heads"]) == (36, 12, 6)
    assert packaged["patch_voxels"] == yaml.safe_load(patches)
    assert "size" not in packaged
    model = fmct.load(folder)
    places = {"[8,4,8]": 3 * 6 * 3, "[12,8,6]": 2 * 3 * 4}[patches]
    assert model.tokens(torch.rand(1, 3, 24, 24, 24)).shape == (1, 2 + places, 36)


def test_runs_and_packages_from_before_these_keys_go_on(tiny: TinyCohort, tmp_path: Path) -> None:
    experiment = load_experiment([EXPERIMENTS / "pretrain_mae_smoke.yaml"], flags(tiny, tmp_path))
    record = as_record(experiment)
    older = json.loads(json.dumps(record))
    for section, key in (
        ("backbone", "positions"),
        ("backbone", "layer_scale"),
        ("optimizer", "layer_decay"),
        ("trainer", "compile"),
    ):
        del older[section][key]
    assert completed(older) == record


def test_layer_decay_reaches_the_run(tiny: TinyCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[list[float]] = []
    build = OptimizerConfig.build

    def record(config: OptimizerConfig, *arguments: Any) -> Any:
        optimizer, schedule = build(config, *arguments)
        rates.append([group["initial_lr"] for group in optimizer.param_groups])
        return optimizer, schedule

    monkeypatch.setattr(OptimizerConfig, "build", record)
    more = ("--optimizer.layer_decay", "0.5", "--optimizer.lr", "1.0", "--task.backbone_lr_factor", "1.0")
    run("classify_smoke", tiny, tmp_path, *CLASSIFIER, *more, "--backbone.depth", "2")
    assert sorted({*rates[0]}) == pytest.approx([0.125, 0.25, 0.5, 1.0])


def test_shorter_tokens_of_any_width_take_part(tiny: TinyCohort, tmp_path: Path) -> None:
    folder = run("pretrain_mae_smoke", tiny, tmp_path, "--backbone.width", "40", "--task.decoder.width", "20")
    positions: Tensor = fmct.load(folder).backbone.positions
    assert positions.shape == (1, 27, 40)
    assert torch.isfinite(positions).all()
