"""A loader process that is killed, or hangs: the run ends in time, and says at which scan it was."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TinyCohort

from fmct.console.errors import FmctError
from fmct.data import worker_watch
from fmct.data.cached_rows import cached_rows
from fmct.data.dataset import ScanDataset
from fmct.data.loader import ScanLoader, scan_loader
from fmct.data.manifest import read_manifest
from fmct.data.volumes import VolumeCache
from fmct.data.worker_watch import Reading, lost
from fmct.fit import main

SMOKE = Path(__file__).resolve().parent.parent / "experiments" / "pretrain_mae_smoke.yaml"
TIMEOUT_S = 2


class Faulty(ScanDataset):
    """Scans, of which one never comes."""

    fault = staticmethod(lambda: None)
    bad = "scan005"

    def _read(self, scan_id: str) -> Any:
        if scan_id == self.bad:
            self.fault()
        return super()._read(scan_id)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])  # as native code that never comes back
    time.sleep(600)


@pytest.fixture
def loader(tiny: TinyCohort, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ScanLoader:
    monkeypatch.setattr(Faulty, "fault", staticmethod(request.param))
    cache = VolumeCache.open(tiny.cache)
    data = Faulty(cached_rows(read_manifest(tiny.manifest), cache, tiny.manifest), cache)
    return scan_loader(data, 2, 2, timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("loader", [die], indirect=True)
def test_loader_worker_killed(loader: ScanLoader, tiny: TinyCohort) -> None:
    with pytest.raises(FmctError) as raised:
        list(loader)
    assert "loader process 0 (pid " in raised.value.what
    assert raised.value.what.endswith("at scan scan005")
    assert raised.value.where == str(VolumeCache.open(tiny.cache).volume_path("scan005"))
    assert "memory" in raised.value.fix


@pytest.mark.parametrize("loader", [die], indirect=True)
def test_a_death_that_no_signal_tells_of_is_noticed_long_before_the_time_out(
    loader: ScanLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_watch, "SECONDS_BETWEEN_LOOKS", 0.2)
    loader.timeout = 600
    batches = iter(loader)
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    start = time.monotonic()
    try:
        with pytest.raises(FmctError, match=r"loader process 0 \(pid \d+\) exited unexpectedly, at scan scan005"):
            list(batches)
    finally:
        signal.signal(signal.SIGCHLD, handler)
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("loader", [hang], indirect=True)
def test_loader_hang(loader: ScanLoader) -> None:
    start = time.monotonic()
    with pytest.raises(FmctError) as raised:
        list(loader)
    assert time.monotonic() - start < TIMEOUT_S + 30
    assert raised.value.what.startswith(f"no batch came for {TIMEOUT_S} s; the loader is at scan scan005 (")
    assert "data.timeout_s" in raised.value.fix
    pids = [int(pid) for pid in loader.reading.table[:, 0].tolist()]
    assert all(not Path(f"/proc/{pid}").exists() for pid in pids), "nobody is left behind"


def test_what_torch_says_from_a_signal_handler_is_understood(tiny: TinyCohort) -> None:
    cache = VolumeCache.open(tiny.cache)
    data = ScanDataset(cached_rows(read_manifest(tiny.manifest), cache, tiny.manifest), cache)
    reading = Reading(2)
    reading.table[1] = torch.tensor([4321, 3, time.monotonic()])
    told = lost(RuntimeError("DataLoader worker (pid 4321) is killed by signal: Killed. "), reading, data)
    assert told is not None
    assert told.what == "loader process 1 (pid 4321) was killed by signal: Killed, at scan scan003"
    assert lost(RuntimeError("DataLoader worker (pid 99) is killed by signal: Killed. "), reading, data) is None
    assert lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), reading, data) is None


def test_a_run_names_the_scan_too(
    tiny: TinyCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = ScanDataset._read

    def deadly(self: ScanDataset, scan_id: str) -> Any:
        if scan_id == "scan007" and os.getpid() != parent:
            die()
        return read(self, scan_id)

    parent = os.getpid()
    monkeypatch.setattr(ScanDataset, "_read", deadly)
    flags = [
        *("--config", str(SMOKE), "--data.manifest", str(tiny.manifest), "--data.cache", str(tiny.cache)),
        *("--trainer.runs", str(tmp_path), "--input.voxels", "24", "--data.workers", "2", "--data.batch_size", "2"),
    ]
    assert main(flags) == 1
    said = capsys.readouterr().err
    assert "at scan scan007" in said
    assert len([line for line in said.splitlines() if line.startswith("error: loader process")]) == 1
