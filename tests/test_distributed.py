"""Two processes learn what one does with twice the batch, whether they copy parameters or divide them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TinyCohort
from safetensors.torch import load_file

import fmct
from fmct.experiment.loading import load_experiment
from fmct.experiment.sharding import parts_with_parameters, shard
from fmct.export import Export
from fmct.fit import fit

pytestmark = pytest.mark.usefixtures("one_thread")
EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
FORKED_PAIRS = Path(__file__).resolve().parent / "forked_pairs.py"
DINO = ("--task.local_voxels", "16", "--optimizer.weight_decay_end", "0.4", "--task.freeze_last_layer_epochs", "1")
TASKS = {
    "mae": (),
    "anomaly": (),
    "dino": DINO,
    "all": (
        *(*DINO, "--task.ibot.weight", "1", "--task.koleo_weight", "0.1", "--task.mae_weight", "1"),
        *("--task.mae.decoder.depth", "1", "--task.mae.decoder.width", "48", "--task.mae.decoder.heads", "4"),
        *("--task.loss_chunk_rows", "8", "--optimizer.layer_decay", "0.8"),
    ),
}
EXPERIMENT = {name: f"pretrain_{'dino' if name == 'all' else name}_smoke" for name in TASKS}
STRATEGIES = {"mae": ("ddp", "fsdp2"), "anomaly": ("ddp", "fsdp2"), "dino": ("ddp", "fsdp2"), "all": ("fsdp2",)}
STEPS, KILLED_AT = 5, 4


def flags(cohort: TinyCohort, runs: Path, task: str, *more: str) -> list[str]:
    return [
        *("--data.manifest", str(cohort.manifest), "--data.cache", str(cohort.cache), "--input.voxels", "24"),
        *("--trainer.runs", str(runs), "--trainer.max_steps", str(STEPS), "--trainer.clip_norm", "1.0"),
        *("--trainer.matmul_precision", "highest", "--data.val_splits", "[]", *TASKS[task], *more),
    ]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "weights" / "model.safetensors")


@pytest.fixture(scope="module")
def pairs(tiny: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs with two processes: STRATEGY-TASK-VARIANT/NAME."""
    folder = tmp_path_factory.mktemp("pairs")

    def job(name: str, *more: str, killed_at: int | None = None) -> dict[str, object]:
        strategy, task, _ = name.split("-")
        config = ["--config", str(EXPERIMENTS / f"{EXPERIMENT[task]}.yaml"), "--trainer.strategy", strategy]
        rest = flags(tiny, folder / name, task, "--data.batch_size", "2", *more)
        return {"flags": [*config, *rest], "killed_at": killed_at}

    save = ("--trainer.checkpoint_every_steps", "2", "--backbone.drop_path", "0.2")
    jobs = [
        *(job(f"{strategy}-{task}-plain") for task, strategies in STRATEGIES.items() for strategy in strategies),
        job("fsdp2-mae-bf16", "--trainer.precision", "bf16-mixed", "--backbone.positions", "rope"),
        job("fsdp2-dino-whole", *save),
        job("fsdp2-dino-killed", *save, killed_at=KILLED_AT),
    ]
    subprocess.run([sys.executable, str(FORKED_PAIRS), json.dumps(jobs)], check=True, timeout=300)
    killed = job("fsdp2-dino-killed", *save)
    shutil.copytree(folder / "fsdp2-dino-killed", folder / "as-it-was-killed", symlinks=True)
    subprocess.run([sys.executable, str(FORKED_PAIRS), json.dumps([killed])], check=True, timeout=120)
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_two_processes_equal_one_with_twice_the_batch(pairs: Path, tiny: TinyCohort, tmp_path: Path, task: str) -> None:
    more = flags(tiny, tmp_path, task, "--data.batch_size", "4", "--trainer.log_every_steps", "1")
    alone = fit(load_experiment([EXPERIMENTS / f"{EXPERIMENT[task]}.yaml"], more))
    losses = pd.read_csv(alone / "metrics.csv")["train/loss"].to_numpy()
    assert len(losses) == STEPS
    for strategy in STRATEGIES[task]:
        runs = pairs / f"{strategy}-{task}-plain"
        shares = [json.loads((runs / f"losses_{rank}.json").read_text()) for rank in range(2)]
        assert np.abs(np.subtract(*shares)).max() > 1e-3, "each has scans of its own"
        np.testing.assert_allclose(np.mean(shares, 0), losses, atol=1e-5, rtol=0)
        together, ours = weights(runs / alone.name), weights(alone)
        assert together.keys() == ours.keys()
        for name, tensor in ours.items():
            torch.testing.assert_close(together[name], tensor, atol=1e-5, rtol=0, msg=f"{strategy} {name}")


def test_divided_parameters_train_in_bfloat16(pairs: Path) -> None:
    losses = json.loads((pairs / "fsdp2-mae-bf16" / "losses_0.json").read_text())
    assert len(losses) == STEPS
    assert np.isfinite(losses).all()
    assert fmct.load(pairs / "fsdp2-mae-bf16" / "pretrain_mae_smoke").backbone.positions is None


def test_divided_runs_that_were_killed_end_as_if_they_had_not_been(pairs: Path) -> None:
    whole, killed = (pairs / f"fsdp2-dino-{name}" / "pretrain_dino_smoke" for name in ("whole", "killed"))
    ours, theirs = weights(killed), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert len(json.loads((killed.parent / "losses_0.json").read_text())) == STEPS - 3  # the first went on from step 3


def test_checkpoints_of_divided_runs_are_whole(pairs: Path) -> None:
    divided, copied = (
        torch.load(pairs / f"{name}-dino-plain/pretrain_dino_smoke/checkpoints/last.ckpt", weights_only=True)
        for name in ("fsdp2", "ddp")
    )
    assert divided["state_dict"].keys() == copied["state_dict"].keys()
    shapes = [{n: t.shape for n, t in c["state_dict"].items()} for c in (divided, copied)]
    assert shapes[0] == shapes[1]
    states = [c["optimizer_states"][0]["state"] for c in (divided, copied)]
    assert states[0].keys() == states[1].keys()
    for ours, theirs in zip(*(state.values() for state in states), strict=True):
        torch.testing.assert_close(ours["exp_avg"], theirs["exp_avg"], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", ["ddp-mae-plain", "fsdp2-dino-plain"])
def test_export_makes_of_the_last_checkpoint_what_the_run_packaged(pairs: Path, tmp_path: Path, name: str) -> None:
    (run,) = (path for path in (pairs / name).iterdir() if path.is_dir())
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    shutil.rmtree(tmp_path / "run" / "weights")
    assert Export(run_folder=tmp_path / "run", out=tmp_path / "out").run() == 0
    exported, packaged = load_file(tmp_path / "out" / "model.safetensors"), weights(run)
    assert exported.keys() == packaged.keys()
    assert all(torch.equal(exported[tensor], packaged[tensor]) for tensor in packaged)
    assert (tmp_path / "out" / "config.json").read_text() == (run / "weights" / "config.json").read_text()
    assert (tmp_path / "out" / "MODEL_CARD.md").read_text() == (run / "weights" / "MODEL_CARD.md").read_text()


def test_export_takes_what_a_killed_run_came_to(pairs: Path, tmp_path: Path) -> None:
    run = pairs / "as-it-was-killed" / "pretrain_dino_smoke"
    assert not (run / "weights").exists()
    assert Export(run_folder=run, out=tmp_path / "out").run() == 0
    model = fmct.load(tmp_path / "out")
    assert model.config.steps == 3
    teacher = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(model.backbone.cls_token, teacher["teacher.backbone.cls_token"])


def test_parts_that_are_divided_together_are_those_that_are_called() -> None:
    experiment = load_experiment([EXPERIMENTS / "pretrain_dino_smoke.yaml"])
    from fmct.experiment.loading import as_record
    from fmct.tasks.base import Setting

    setting = Setting(experiment.input, experiment.optimizer, 0, as_record(experiment))
    task = experiment.task.build(experiment.backbone.build(3, 48), setting)
    names = {part: name for name, part in task.named_modules()}
    assert [names[part] for part in parts_with_parameters(task)] == [
        *("student.backbone", "student.head", "teacher.backbone", "teacher.head")
    ]


def test_a_parameter_that_no_call_would_gather_is_refused() -> None:
    task = torch.nn.Module()
    task.token = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(fmct.console.errors.UsageError, match="holds token itself"):
        shard(task, None)  # type: ignore[arg-type]
