"""Ways of adapting: what each trains, what it refuses, and that every experiment of labels runs."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import TinyCohort, make_cohort
from random_packages import random_package
from safetensors.torch import load_file

import fmct
from fmct.console.errors import UsageError
from fmct.experiment.loading import as_record, from_record, load_experiment
from fmct.experiment.schema import Experiment
from fmct.export import Export
from fmct.fit import fit
from fmct.tasks.base import Setting
from fmct.tasks.classifier import ClassifierConfig, ClassifierTask

pytestmark = pytest.mark.usefixtures("one_thread")
EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
SMOKE = EXPERIMENTS / "classify_smoke.yaml"
OVERLAY = EXPERIMENTS / "overlays" / "smoke.yaml"
FULL_SIZE = sorted(path for path in EXPERIMENTS.glob("classify_*_*.yaml") if "resnet" not in path.name)
ONE_OF_EACH_MODE = {path.stem.rpartition("_")[2]: path for path in FULL_SIZE}


def smoke(cohort: TinyCohort, runs: Path, *more: str) -> Experiment:
    flags = [
        *("--data.manifest", str(cohort.manifest), "--data.cache", str(cohort.cache), "--input.voxels", "24"),
        *("--trainer.runs", str(runs), "--backbone.depth", "2", "--backbone.width", "48", *more),
    ]
    return load_experiment([SMOKE], flags)


@pytest.fixture(scope="module")
def package(tiny: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    return random_package(smoke(tiny, folder), tiny.cache, folder / "weights")


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


# -- what the modes train ---------------------------------------------------------------------------------------------

MODES = {
    "finetune": (),
    "linear": ("--task.head.pooling", "mean+std+mirror"),
    "attentive": ("--task.head.heads", "4", "--task.loss.kind", "focal"),
    "lora": ("--task.lora.rank", "2", "--task.lora.dropout", "0.1"),
}


@pytest.mark.parametrize("mode", MODES)
def test_what_a_mode_trains(package: Path, tiny: TinyCohort, tmp_path: Path, mode: str) -> None:
    more = ("--task.mode", mode, "--task.weights", str(package), "--trainer.max_steps", "4", *MODES[mode])
    run = fit(smoke(tiny, tmp_path, *more, "--optimizer.lr", "1e-2"))
    before, after = tensors(package), tensors(run / "weights")
    assert before.keys() == {name for name in after if not name.startswith("head.")}  # what LoRA learned is merged
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    matrices = {"attention.qkv.weight", "attention.proj.weight"}
    layers = {f"backbone.blocks.{block}.{name}" for block in range(2) for name in matrices}
    expected = {"finetune": before.keys(), "linear": set(), "attentive": set(), "lora": layers}[mode]
    assert moved == expected
    model = fmct.load(run)
    assert model.config.head is not None
    assert model.config.head.kind == ("attentive" if mode == "attentive" else "linear")
    assert json.loads((run / "weights" / "config.json").read_text())["head"]["kind"] == model.config.head.kind
    if mode == "linear":
        assert after["head.linear.weight"].shape == (2, 4 * 48)
    if mode == "lora":
        (run / "weights").rename(tmp_path / "first")
        assert Export(run_folder=run, out=run / "weights").run() == 0  # merges what the checkpoint holds apart
        assert all(torch.equal(tensor, after[name]) for name, tensor in tensors(run / "weights").items())
    volumes = torch.randint(-1000, 1000, (2, 1, 24, 24, 24), dtype=torch.int16)
    assert model.probabilities(volumes).shape == (2, 2)


@pytest.mark.parametrize("mode", ["linear", "attentive"])
def test_probes_work_as_in_evaluation_and_compute_no_gradient_of_the_backbone(tiny: TinyCohort, mode: str) -> None:
    more = ("--task.mode", mode, "--task.weights", "null", "--backbone.drop_path", "0.5")
    more += ("--task.head.heads", "4") if mode == "attentive" else ()
    task = task_of(smoke(tiny, Path("runs"), *more)).train()
    x = torch.rand(2, 3, 24, 24, 24)
    assert torch.equal(task.backbone(x), task.backbone(x))  # no drop path
    task(x).sum().backward()
    assert all(p.grad is None for p in task.backbone.parameters())
    assert all(p.grad is not None for p in task.head.parameters())
    assert [module for module, _ in task.trainable()] == [task.head]


def task_of(experiment: Experiment) -> ClassifierTask:
    torch.manual_seed(0)
    backbone = experiment.backbone.build(3, experiment.input.voxels)
    setting = Setting(experiment.input, experiment.optimizer, experiment.seed, as_record(experiment))
    task = experiment.task.build(backbone, setting)
    assert isinstance(task, ClassifierTask)
    return task


def test_layers_and_the_head_learn_at_rates_of_their_own(tiny: TinyCohort) -> None:
    more = ("--task.mode", "scratch", "--task.weights", "null", "--optimizer.layer_decay", "0.5")
    experiment = smoke(tiny, Path("runs"), *more, "--optimizer.lr", "1e-2", "--task.backbone_lr_factor", "0.1")
    task = task_of(experiment)
    optimizer, schedule = experiment.optimizer.build(task.trainable(), 4, 100)
    rate = {
        p: base for base, group in zip(schedule.base_lrs, optimizer.param_groups, strict=True) for p in group["params"]
    }
    assert rate[task.head.linear.weight] == pytest.approx(1e-2)
    assert rate[task.backbone.norm.weight] == pytest.approx(1e-3)
    blocks = task.backbone.blocks
    assert rate[blocks[1].mlp.up.weight] == pytest.approx(0.5e-3)
    assert rate[blocks[0].mlp.up.weight] == pytest.approx(0.25e-3)
    assert rate[task.backbone.cls_token] == pytest.approx(0.125e-3)


# -- what doesn't go together -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--task.weights", "null"], "mode finetune starts from pretrained weights, and task.weights is null"),
        (["--task.mode", "lora", "--task.weights", "null"], "mode lora starts from pretrained weights"),
        (["--task.mode", "scratch"], "mode scratch starts from random weights, not runs/pretrain_mae_smoke/weights"),
        (["--task.mode", "linear", "--task.head.kind", "attentive"], "has a head of kind linear, not attentive"),
        (["--task.mode", "attentive", "--task.head.kind", "linear"], "has a head of kind attentive, not linear"),
        (["--task.mode", "attentive", "--task.head.pooling", "mean"], "unknown key task.head.pooling"),
        (["--task.lora.rank", "4"], "task.lora has no effect with mode finetune"),
        (["--task.mode", "probe"], "'finetune', 'linear', 'attentive', 'lora', 'scratch'"),
        (["--task.head.pooling", "median"], "'cls', 'mean', 'max', 'mean+max', 'mean+std' or 'mean+std+mirror'"),
        (["--task.loss.gamma", "2"], "unknown key task.loss.gamma"),
        (
            ["--task.loss.kind", "focal", "--task.loss.alpha", "0.25", "--task.balance", "pos_weight"],
            "task.loss.alpha and task.balance would both weigh positives",
        ),
        (["--task.views", "whole"], "task.views whole is for a backbone that stays: task.mode linear or attentive"),
        (
            ["--task.mode", "linear", "--task.views", "whole", "--trainer.strategy", "fsdp2"],
            "task.views whole encodes scans one by one",
        ),
        (["--task.ema_decay", "0.99", "--trainer.strategy", "fsdp2"], "task.ema_decay averages whole weights"),
        (["--trainer.keep", "best", "--trainer.validate_every_epochs", "9"], "keep best needs a validation"),
    ],
)
def test_contradictions_are_refused(more: list[str], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_experiment([SMOKE], more)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


def test_the_mode_gives_what_is_left_out() -> None:
    def task(**given: object) -> ClassifierConfig:
        return ClassifierConfig.model_validate({"labels": ["ICH"], "weights": "w"} | given)

    assert task().backbone_lr_factor == 0.01
    assert task(mode="lora").backbone_lr_factor == 1
    assert task(mode="lora").lora is not None
    assert task(mode="linear", weights=None).lora is None
    assert task(mode="attentive", head={"heads": 3}).head.heads == 3  # type: ignore[union-attr]
    assert task(mode="finetune", head={"kind": "attentive"}).head.kind == "attentive"
    assert task(head={"pooling": "max"}).head.pooling == "max"  # type: ignore[union-attr]
    assert task(loss={"label_smoothing": 0.1}).loss.kind == "bce"
    for mode in ("knn", "logreg"):
        assert task(mode=mode).head.kind == "linear"


def test_runs_from_before_there_was_a_mode_for_it_were_made_from_scratch(tiny: TinyCohort) -> None:
    record = as_record(smoke(tiny, Path("runs"), "--task.mode", "scratch", "--task.weights", "null"))
    older = record | {"task": record["task"] | {"mode": "finetune"}}
    assert as_record(from_record(older)) == record


# -- the experiment files ---------------------------------------------------------------------------------------------


def test_there_is_a_file_for_every_mode_and_labeled_set() -> None:
    names = {path.stem for path in FULL_SIZE}
    for labeled_set in ("cq500", "rsna2019", "ehr"):
        assert {f"classify_{labeled_set}_{mode}" for mode in ("finetune", "linear", "attentive", "scratch")} <= names
    assert set(ONE_OF_EACH_MODE) == {"finetune", "linear", "attentive", "lora", "scratch"}


@pytest.mark.parametrize("path", FULL_SIZE, ids=lambda path: path.stem)
def test_names_say_mode_and_published_settings_are_kept(path: Path) -> None:
    experiment = load_experiment([path])
    task = experiment.task
    assert isinstance(task, ClassifierConfig)
    assert task.mode == path.stem.rpartition("_")[2]
    assert (experiment.optimizer.weight_decay, experiment.trainer.clip_norm) == (0.01, 1.0)
    assert (experiment.data.batch_size, experiment.data.sampling.kind) == (64, "balanced")
    if task.mode == "finetune":
        assert experiment.optimizer.lr * task.backbone_lr_factor == pytest.approx(1e-5)


@pytest.mark.parametrize("mode", ONE_OF_EACH_MODE)
def test_full_size_classifiers_take_two_steps_under_the_smoke_overlay(tmp_path: Path, mode: str) -> None:
    files = [ONE_OF_EACH_MODE[mode], OVERLAY]
    cohort = make_cohort(tmp_path)
    frame = pd.read_csv(cohort.manifest, dtype=str)
    experiment = load_experiment(files)
    for number, label in enumerate(experiment.labels):
        frame[f"label:{label}"] = [(row + number) % 2 for row in range(len(frame))]
    frame.to_csv(cohort.manifest, index=False)
    where = ["--data.manifest", str(cohort.manifest), "--data.cache", str(cohort.cache)]
    weights = random_package(experiment, cohort.cache, tmp_path / "weights")
    more = [] if mode == "scratch" else ["--task.weights", str(weights)]
    run = fit(load_experiment(files, [*where, "--trainer.runs", str(tmp_path / "runs"), *more]))
    model = fmct.load(run)
    assert model.config.labels == experiment.labels
    assert model.config.steps == 2
