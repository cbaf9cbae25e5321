"""Feeding the scans: workers, memory formats, and scans that can't be read."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.multiprocessing as mp
from conftest import TinyCohort, make_cohort
from quarantine_process import admit_on_rank

from fmct.console.errors import FmctError, UsageError
from fmct.data.datamodule import DataConfig, ScanDataModule
from fmct.data.dataset import ScanDataset
from fmct.data.loader import scan_loader, start_worker
from fmct.data.manifest import read_manifest
from fmct.data.quarantine import Quarantine, Unread
from fmct.data.sharding import Draw
from fmct.data.volumes import VolumeCache
from fmct.experiment.loading import load_experiment
from fmct.fit import fit, main

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
TRAINED = 12  # scans of the cohort's train split
FLAGS = ("--input.voxels", "24", "--data.batch_size", "3", "--trainer.max_epochs", "2")


def module(cohort: TinyCohort, **changes: Any) -> ScanDataModule:
    return DataConfig(manifest=cohort.manifest, cache=cohort.cache, **{"batch_size": 4} | changes).build((), seed=1)


def dataset(cohort: TinyCohort) -> ScanDataset:
    return ScanDataset(read_manifest(cohort.manifest), VolumeCache.open(cohort.cache), ("ICH",))


def flags(cohort: TinyCohort, runs: Path, *more: str) -> list[str]:
    paths = ["--data.manifest", str(cohort.manifest), "--data.cache", str(cohort.cache), "--trainer.runs", str(runs)]
    return ["--config", str(EXPERIMENTS / "pretrain_mae_smoke.yaml"), *paths, *FLAGS, *more]


def damage(cohort: TinyCohort, *scans: int) -> None:
    for scan in scans:
        VolumeCache.open(cohort.cache).volume_path(f"scan{scan:03d}").write_bytes(b"no volume")


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyCohort:
    """A cohort in which the volumes of scans 3 and 7, both for training, are broken."""
    monkeypatch.setattr("fmct.data.dataset.SECONDS_BEFORE_RETRY", 0.0)
    cohort = make_cohort(tmp_path / "cohort")
    damage(cohort, 3, 7)
    return cohort


# -- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_the_cached_volumes_in_the_order_of_the_epoch(tiny: TinyCohort, workers: int) -> None:
    data = module(tiny, workers=workers)
    cache = VolumeCache.open(tiny.cache)
    loader = data.train_dataloader()
    order = np.random.default_rng([1, 0]).permutation(TRAINED)
    batches = list(loader)
    assert len(batches) == len(loader) == data.training_batches(1) == 3
    for number, batch in enumerate(batches):
        assert batch["hu"].shape == (4, 1, 24, 24, 24)
        assert batch["hu"].dtype == torch.int16
        assert batch["index"].tolist() == order[4 * number : 4 * number + 4].tolist()
        assert batch["draws"] == [Draw(row) for row in batch["index"].tolist()]
        for hu, scan_id in zip(batch["hu"], batch["scan_id"], strict=True):
            assert np.array_equal(hu[0].numpy(), cache.read(scan_id))
    again = [scan for batch in loader for scan in batch["scan_id"]]
    assert again == [scan for batch in batches for scan in batch["scan_id"]]  # the same epoch again
    loader.sampler.set_epoch(1)
    later = [row for batch in loader for row in batch["index"].tolist()]
    assert later == np.random.default_rng([1, 1]).permutation(TRAINED).tolist()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 2, 3])
def test_a_loader_goes_on_from_its_state_within_an_epoch(tiny: TinyCohort, workers: int, taken: int) -> None:
    loader = module(tiny, workers=workers).train_dataloader()
    loader.sampler.set_epoch(4)
    batches = iter(loader)
    for _ in range(taken):
        next(batches)
    state = loader.state_dict()
    rest = [batch["scan_id"] for batch in batches]
    other = module(tiny, workers=workers).train_dataloader()
    other.load_state_dict(state)
    assert [batch["scan_id"] for batch in other] == rest if taken < 3 else rest == []


def test_windows_keep_their_channels(tiny: TinyCohort, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = np.random.default_rng(0).random((3, 8, 8, 8)).astype(np.float16)
    monkeypatch.setattr("fmct.data.dataset.read_volume", lambda _path: windows)
    item = dataset(tiny)[0]
    assert item["hu"].dtype == torch.float16
    assert np.array_equal(item["hu"].numpy(), windows)


def test_a_volume_of_another_shape_is_no_part_of_a_batch(tiny: TinyCohort, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = iter([(8, 8, 8), (8, 8, 9), (8, 8, 8)])
    monkeypatch.setattr("fmct.data.dataset.read_volume", lambda _path: np.ones(next(shapes), np.int16))
    batch = dataset(tiny).__getitems__([4, 5, 6])
    assert batch["hu"].shape == (2, 1, 8, 8, 8)
    assert batch["index"].tolist() == [4, 6]
    assert batch["scan_id"] == ["scan004", "scan006"]
    assert [(one.scan_id, one.error) for one in batch["unread"]] == [
        ("scan005", "the cached volume is (1, 8, 8, 9) torch.int16, others are (1, 8, 8, 8) torch.int16")
    ]


def test_workers_draw_random_numbers_of_their_own_and_the_same_every_time() -> None:
    state = (torch.get_rng_state(), np.random.get_state(), random.getstate(), torch.get_num_threads())
    drawn = {}
    try:
        for rank, worker in [(0, 0), (0, 1), (1, 0), (0, 0)]:
            start_worker(5, rank, worker)
            numbers = (torch.rand(1).item(), np.random.rand(), random.random())
            assert torch.get_num_threads() == 1
            assert drawn.setdefault((rank, worker), numbers) == numbers
    finally:
        torch.set_rng_state(state[0])
        np.random.set_state(state[1])
        random.setstate(state[2])
        torch.set_num_threads(state[3])
    assert all(len({numbers[kind] for numbers in drawn.values()}) == 3 for kind in range(3))


def test_making_a_loader_leaves_the_global_random_state_alone(tiny: TinyCohort) -> None:
    before = torch.get_rng_state()
    list(module(tiny).train_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_balanced_batches_and_shots_reach_the_network(tiny: TinyCohort) -> None:
    config = {"manifest": tiny.manifest, "cache": tiny.cache, "batch_size": 2, "train_splits": ("train", "val")}
    shots = DataConfig(**config | {"val_splits": (), "shots": {"label": "MidlineShift", "k": 3}})
    data = shots.build(("MidlineShift",), seed=0)
    target = torch.cat([batch["target"] for batch in data.train_dataloader()])
    assert sorted(target.flatten().tolist()) == [0, 0, 0, 1, 1, 1]
    assert data.train.frame["patient_id"].nunique() == 6
    balanced = DataConfig(**config | {"val_splits": (), "sampling": {"kind": "balanced"}})
    targets = [b["target"] for b in balanced.build(("MidlineShift",), seed=0).train_dataloader()]
    assert not torch.cat(targets).isnan().any()
    assert torch.cat(targets).mean().item() == pytest.approx(0.5, abs=1 / len(targets))


@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [
        ("pretrain_mae_smoke", ["--data.sampling.kind", "balanced"], "a pretext task learns no labels"),
        ("classify_smoke", ["--data.sampling.kind", "balanced", "--data.sampling.labels", "SDH"], "SDH isn't among"),
        ("classify_smoke", ["--data.sampling.kind=balanced", "--task.balance=pos_weight"], "use one"),
        ("classify_smoke", ["--data.shots.label", "SDH", "--data.shots.k", "2"], "data.shots.label SDH isn't among"),
        ("classify_smoke", ["--data.shots.label", "ICH"], "data.shots.k is missing"),
        ("classify_smoke", ["--data.max_bad_scans", "1", "--data.batch_size", "2"], "batch_size of at least 3"),
        ("pretrain_mae_smoke", ["--data.max_bad_scans", "1", "--data.batch_size", "1"], "batch_size of at least 2"),
        ("pretrain_mae_smoke", ["--data.sampling.kind", "balance"], "data.sampling"),
    ],
)
def test_sampling_that_cannot_be_is_refused(name: str, more: list[str], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        load_experiment([EXPERIMENTS / f"{name}.yaml"], more)


# -- scans that can't be read -----------------------------------------------------------------------------------------


def test_a_second_try_may_succeed_and_a_third_is_not_made(tiny: TinyCohort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmct.data.dataset.SECONDS_BEFORE_RETRY", 0.0)
    tries: list[Path] = []

    def slow_disk(path: Path) -> Any:
        tries.append(path)
        if len(tries) in failing:
            raise FmctError("the cached volume is missing", path, "look again")
        return np.zeros((4, 4, 4), np.int16)

    monkeypatch.setattr("fmct.data.dataset.read_volume", slow_disk)
    failing = {1}
    assert dataset(tiny)[0]["scan_id"] == "scan000"
    failing = {3, 4}
    with pytest.raises(FmctError, match="is missing"):
        dataset(tiny)[0]
    assert len(tries) == 4


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_bad_scan_stops_the_run_by_name(
    damaged: TinyCohort, tmp_path: Path, workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(damaged, tmp_path, "--data.workers", workers)) == 1
    error = capsys.readouterr().err
    assert "scan scan003 can't be read" in error or "scan scan007 can't be read" in error
    assert ".b2nd" in error
    assert len(error.strip().splitlines()) == 3
    assert not list(tmp_path.rglob("quarantine.csv"))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_bad_scans_within_the_budget_are_left_out_and_listed(
    damaged: TinyCohort, tmp_path: Path, workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(damaged, tmp_path, "--data.max_bad_scans", "2", "--data.workers", workers)) == 3
    folder = tmp_path / "pretrain_mae_smoke"
    listed = pd.read_csv(folder / "quarantine.csv", dtype=str)
    assert sorted(listed["scan_id"]) == ["scan003", "scan007"]
    assert listed.columns.tolist() == ["scan_id", "path", "error", "epoch", "step"]
    assert (listed["epoch"] == "0").all()
    assert all(path.endswith(".b2nd") for path in listed["path"])
    error = capsys.readouterr().err
    assert [error.count(f"left out: scan {name}") for name in ("scan003", "scan007")] == [1, 1]
    assert pd.read_csv(folder / "metrics.csv")["train/loss"].notna().sum() == 2 * TRAINED / 3  # no step is lost
    assert json.loads((folder / "environment.json").read_text())["left_out"] == 2


def test_more_than_the_budget_stops_the_run_with_the_list(
    damaged: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(damaged, tmp_path, "--data.max_bad_scans", "1")) == 1
    error = capsys.readouterr().err
    assert "2 scans can't be read, data.max_bad_scans allows 1: scan0" in error
    assert {"scan003", "scan007"} <= set(error.replace("(", " ").replace(";", " ").split())
    assert len(pd.read_csv(tmp_path / "pretrain_mae_smoke" / "quarantine.csv")) == 2


def test_the_run_stops_when_a_whole_batch_is_bad(
    damaged: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(damaged, *range(TRAINED))
    assert main(flags(damaged, tmp_path, "--data.max_bad_scans", "99")) == 1
    assert "a batch has 0 scans left at step 0, and training needs a scan" in capsys.readouterr().err


def test_what_was_trained_on_is_the_rest_of_the_batch(
    damaged: TinyCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(
        "fmct.callbacks.nan_guard.NanGuard.on_before_backward", lambda self, *_: seen.append(self.names)
    )
    fit(load_experiment([Path(flags(damaged, tmp_path)[1])], flags(damaged, tmp_path, "--data.max_bad_scans", "2")[2:]))
    rows = read_manifest(damaged.manifest)["scan_id"]
    for epoch in range(2):
        order = [rows[row] for row in np.random.default_rng([42, epoch]).permutation(TRAINED)]
        whole = [order[start : start + 3] for start in range(0, TRAINED, 3)]
        left = [[scan for scan in batch if scan not in {"scan003", "scan007"}] for batch in whole]
        assert seen[4 * epoch : 4 * epoch + 4] == left


@pytest.mark.parametrize("workers", ["0", "2"])
def test_validation_and_evaluation_leave_no_scan_out(
    tmp_path: Path, workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = make_cohort(tmp_path / "cohort")
    damage(cohort, 13)
    assert main(flags(cohort, tmp_path, "--data.max_bad_scans", "5", "--data.workers", workers)) == 1
    assert "scan scan013 can't be read" in capsys.readouterr().err
    loader = scan_loader(dataset(cohort), 5, int(workers))
    with pytest.raises(FmctError, match="scan scan013 can't be read"):
        list(loader)


def test_a_resumed_run_counts_the_scans_it_left_out_before(tmp_path: Path) -> None:
    def bad(name: str) -> dict[str, Any]:
        return {"scan_id": ["a"], "unread": [Unread(name, f"{name}.b2nd", "is missing", "make it")]}

    Quarantine(tmp_path / "q.csv", budget=2, least=1).admit(bad("00123"), epoch=0, step=4)
    resumed = Quarantine(tmp_path / "q.csv", budget=2, least=1)
    assert resumed.admit(bad("00123"), 0, 4) == {"scan_id": ["a"]}  # met again: counts once
    resumed.admit(bad("y"), 1, 9)
    assert pd.read_csv(tmp_path / "q.csv", dtype=str)["scan_id"].tolist() == ["00123", "y"]
    assert pd.read_csv(tmp_path / "q.csv")["step"].tolist() == [4, 9]
    with pytest.raises(FmctError, match=r"3 scans can't be read, .* allows 2: 00123"):
        resumed.admit(bad("z"), 1, 10)


def test_processes_share_one_budget_and_stop_together(tmp_path: Path) -> None:
    mp.spawn(admit_on_rank, (str(tmp_path),), nprocs=2)
    told = [torch.load(tmp_path / f"told{rank}.pt", weights_only=True) for rank in range(2)]
    assert told[0] == told[1]
    assert told[0][:3] == [[], ["x"], ["x", "y"]]
    assert told[0][3][0].startswith("3 scans can't be read")
    assert pd.read_csv(tmp_path / "q.csv")["scan_id"].tolist() == ["x", "y", "z"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget", "code", "expected"),
    [("2", 3, "2 of at most 2"), ("1", 1, "data.max_bad_scans allows 1"), ("0", 1, "can't be read")],
)
def test_training_in_two_processes_keeps_to_the_budget(
    damaged: TinyCohort, tmp_path: Path, budget: str, code: int, expected: str
) -> None:
    ddp = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.workers", "1", "--data.val_splits", "[]")
    command = [sys.executable, "-m", "fmct.fit", *flags(damaged, tmp_path, "--data.max_bad_scans", budget, *ddp)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "pretrain_mae_smoke" / "quarantine.csv").exists() == (budget != "0")
