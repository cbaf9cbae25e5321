"""Runs that go on: with another configuration, from a damaged checkpoint, after a full disk; and replays of runs."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import TinyCohort
from test_resume import Case, arguments

from fmct.data.volumes import Volume, VolumeCache
from fmct.experiment.checkpoint_files import Hashed
from fmct.experiment.optim import warmup_cosine
from fmct.fit import main

pytestmark = pytest.mark.usefixtures("one_thread")
CASE = Case("mae", workers=0, every=4, killed_at=0, goes_on_from=0)
STEPS = 8
GO_ON = "--continue-with-changes"


def flags_of(cohort: TinyCohort, runs: Path) -> list[str]:
    more = ["--trainer.max_steps", str(STEPS), "--trainer.runs", str(runs), "--trainer.log_every_steps", "1"]
    return [*arguments(cohort, runs, CASE), *more]


@pytest.fixture(scope="module")
def finished(tiny: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps, with checkpoints at the fourth and the eighth."""
    runs = tmp_path_factory.mktemp("finished")
    assert main(flags_of(tiny, runs)) == 0
    return runs / CASE.experiment


@pytest.fixture
def runs(finished: Path, tmp_path: Path) -> Path:
    """The folder of the same run, as if it had been killed after its last checkpoint."""
    folder = tmp_path / CASE.experiment
    shutil.copytree(finished, folder, symlinks=True)
    shutil.rmtree(folder / "weights")
    (folder / "environment.json").unlink()
    experiment = yaml.safe_load((folder / "experiment.yaml").read_text())
    experiment["trainer"]["runs"] = str(tmp_path)
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    return tmp_path


def test_a_run_goes_on_with_another_optimizer_and_more_steps(
    runs: Path, tiny: TinyCohort, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, more = runs / CASE.experiment, ["--trainer.max_steps", "12", "--optimizer.lr", "3e-4"]
    before = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert main([*flags_of(tiny, runs), *more]) == 2
    said = capsys.readouterr().err
    assert "optimizer.lr: 0.001 -> 0.0003; trainer.max_steps: 8 -> 12" in said
    assert "--fresh" in said
    assert GO_ON in said
    assert main([*flags_of(tiny, runs), *more, GO_ON]) == 0
    assert "changed: optimizer.lr: 0.001 -> 0.0003; trainer.max_steps: 8 -> 12" in capsys.readouterr().out
    record = yaml.safe_load((folder / "experiment.yaml").read_text())
    assert (record["optimizer"]["lr"], record["trainer"]["max_steps"]) == (3e-4, 12)
    parts = json.loads((folder / "history.json").read_text())
    assert [part["changes"] for part in parts] == [
        *([], ["optimizer.lr: 0.001 -> 0.0003", "trainer.max_steps: 8 -> 12"])
    ]
    metrics = pd.read_csv(folder / "metrics.csv").set_index("step")
    assert metrics.index.tolist() == list(range(12))
    warmup, final = record["optimizer"]["warmup_fraction"], record["optimizer"]["final_lr_fraction"]
    peak = {8: 1e-3, 12: 3e-4}
    for step, total in [*((step, 8) for step in range(8)), *((step, 12) for step in range(8, 12))]:
        expected = peak[total] * warmup_cosine(step, total, round(warmup * total), final)
        assert metrics["train/lr"][step] == pytest.approx(expected, rel=1e-5), step
    after = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    steps = [int(state["optimizer_states"][0]["state"][0]["step"]) for state in (before, after)]
    assert steps == [8, 12], "the optimizer's moments went on"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--backbone.depth", "2"], "can't go on with another backbone.depth: 3 -> 2"),
        (["--seed", "1", "--data.batch_size", "4"], "another seed: 42 -> 1; data.batch_size: 2 -> 4"),
        (["--optimizer.layer_decay", "0.7"], "another optimizer.layer_decay"),
        (["--task.decoder.width", "32"], "can't go on with another network (decoder."),
    ],
)
def test_other_networks_are_other_runs(
    runs: Path, tiny: TinyCohort, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    folder = runs / CASE.experiment
    before = (folder / "checkpoints" / "last.ckpt").read_bytes()
    assert main([*flags_of(tiny, runs), *more, GO_ON]) == 2
    error = capsys.readouterr().err
    assert said in error, error
    assert len(error.strip().splitlines()) == 3
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == before
    experiment = yaml.safe_load((folder / "experiment.yaml").read_text())
    assert experiment["task"]["decoder"]["width"] != 32, "what was refused isn't written down"


def test_how_a_run_is_saved_may_change_at_any_time(runs: Path, tiny: TinyCohort) -> None:
    more = ["--trainer.checkpoint_keep", "5", "--trainer.timeout_s", "60", "--data.timeout_s", "9"]
    assert main([*flags_of(tiny, runs), *more]) == 0
    assert main([*flags_of(tiny, runs), "--fresh", GO_ON]) == 2


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    runs: Path, tiny: TinyCohort, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = runs / CASE.experiment / "checkpoints" / f"step{STEPS:07d}.ckpt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 3] ^= 4
    newest.write_bytes(content)
    assert main(flags_of(tiny, runs)) == 0
    said = capsys.readouterr()
    assert f"damaged: {newest.name}, its SHA-256" in said.err
    assert "goes on from " in said.out
    assert "step0000006.ckpt" in said.out
    weights = [(path / "weights" / "model.safetensors").read_bytes() for path in (runs / CASE.experiment, finished)]
    assert weights[0] == weights[1]


def test_disk_full_while_a_run_saves(
    tiny: TinyCohort, tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    write, folder = Hashed.write, tmp_path / CASE.experiment

    def limited(self: Hashed, data: Any) -> int:
        if (folder / "checkpoints" / "last.ckpt").exists() and self.file.tell() > 10_000:
            self.failed = OSError(errno.ENOSPC, "No space left on device")
            raise self.failed
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Hashed, "write", limited)
        assert main(flags_of(tiny, tmp_path)) == 1
    error = capsys.readouterr().err
    what, where, fix = error.strip().splitlines()
    assert what == "error: the disk is full (No space left on device)"
    assert where.endswith("step0000006.ckpt")  # the end of the first epoch
    assert "for a checkpoint (" in fix
    assert fix.endswith("are free now), then run it again: the run goes on from step0000004.ckpt")
    assert not list((folder / "checkpoints").glob(".step*")), "nothing half is left"
    assert main(flags_of(tiny, tmp_path)) == 0
    weights = [(path / "weights" / "model.safetensors").read_bytes() for path in (folder, finished)]
    assert weights[0] == weights[1]


def test_a_run_says_what_it_was_made_of(finished: Path, tiny: TinyCohort) -> None:
    (part,) = json.loads((finished / "history.json").read_text())
    environment = json.loads((finished / "environment.json").read_text())
    for record in (part, environment):
        assert record["seed"] == 42
        assert len(record["volumes_sha256"]) == len(record["manifest_sha256"]) == 64
        assert record["cache"] == VolumeCache.open(tiny.cache).settings.folder_name()
    assert part["all_packages"]["torch"] == part["packages"]["torch"] == torch.__version__
    assert part["threads"] == 1
    assert part["revision"] is None or len(part["revision"]) == 40
    losses = json.loads((finished / "first_losses.json").read_text())
    metrics = pd.read_csv(finished / "metrics.csv")
    np.testing.assert_allclose(losses, metrics["train/loss"].dropna()[: len(losses)], rtol=1e-6)


def test_a_replay_has_the_same_losses(
    finished: Path, tmp_path: Path, tiny: TinyCohort, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    there = ["--replay", str(finished), "--trainer.runs", str(tmp_path)]
    assert main([*there, "--data.workers", "1"]) == 0
    assert "equal: the first 8 losses are the same, bit for bit" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert main([*there, "--optimizer.lr", "1"]) == 2
    assert "with another optimizer.lr it would be another run" in capsys.readouterr().err
    assert main([*there, "--fresh"]) == 2

    shutil.copytree(tiny.cache, tmp_path / "cache")
    cache = VolumeCache.open(tmp_path / "cache")
    hu = cache.read("scan004").copy()
    cache.write("scan004", Volume(np.ascontiguousarray(hu[::-1]), cache.affine("scan004")))
    cache.save()
    assert main([*there, "--data.cache", str(tmp_path / "cache")]) == 1
    said = capsys.readouterr().out
    assert "differs from batch " in said
    assert "volumes_sha256: " in said
    assert "manifest_sha256" not in said
