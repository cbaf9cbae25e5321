"""`fmct doctor`: each thing that can be wrong is found and comes with a way to mend it."""

from __future__ import annotations

import importlib
import json
import resource
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, TinyCohort

from fmct.checkup import machine, packages
from fmct.checkup.experiment_check import check_experiment
from fmct.checkup.finding import Finding
from fmct.checkup.packages import check_packages, installed_version
from fmct.checkup.step_probe import Measured, said
from fmct.cli import main
from fmct.experiment.loading import load_experiment

Usage = namedtuple("Usage", "total used free")
GB = 10**9


def levels(findings: list[Finding]) -> dict[str, str]:
    return {finding.subject: finding.level for finding in findings}


def test_a_good_machine_is_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["--cache", str(tmp_path / "cache"), "--runs", str(tmp_path / "new" / "runs")]
    assert main(["doctor", "--json", *folders]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["counts"]["problem"] == 0
    subjects = [finding["subject"] for finding in outcome["findings"]]
    assert {"python", "packages", "processors", "gpu", "memory", "clock", "loopback", "runs folder"} <= set(subjects)
    assert all(finding["fix"] for finding in outcome["findings"] if finding["level"] != "ok")
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("lightning", "2.6.2", "malicious"),
        ("lightning", "2.6.3", "malicious"),
        ("jinja2", "3.1.5", "CVE-2025-27516"),
        ("pydicom", "3.0.1", "CVE-2026-32711"),
        ("monai", "1.5.0", "CVE-2025-58755"),
        ("blosc2", None, "missing"),
        ("torch", "2.9.1", "fmct needs >=2.10"),
    ],
)
def test_bad_and_missing_packages_are_found(name: str, version: str | None, expected: str) -> None:
    found = list(check_packages(lambda one: version if one.lower() == name else installed_version(one)))
    wrong = [finding for finding in found if finding.level == "problem"]
    assert {finding.subject.lower() for finding in wrong} == {name}
    assert expected in " ".join(finding.said for finding in wrong)
    assert all("pip install" in finding.fix for finding in wrong)


def test_torchvision_is_unwanted() -> None:
    found = list(check_packages(lambda name: "0.1" if name == "torchvision" else installed_version(name)))
    assert levels(found)["torchvision"] == "warning"


def test_a_broken_package_ends_the_visit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "KNOWN_BAD", {"numpy": (">=0", "it was made up")})
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "PROBLEM  numpy" in out
    assert "Fix: pip install" in out
    assert "1 to be mended" in out
    assert "clock" not in out


def test_what_is_short_on_a_machine_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    assert "OMP_NUM_THREADS" in machine.check_processors().fix
    monkeypatch.setattr(machine, "memory_bytes", lambda: GB)
    assert machine.check_memory().level == "warning"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    assert machine.check_file_limit().fix == "ulimit -n 4096 (here 1024 at most: ask an admin)"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(64 << 20, 0, 64 << 20))
    assert "--shm-size" in machine.check_shared_memory(tmp_path).fix
    assert machine.check_folder("cache folder", tmp_path / "a" / "b").level == "warning"
    assert machine.check_clock(now=0.0, written=1e9).level == "problem"
    assert machine.check_clock(now=2e9, written=1e9).level == "ok"
    (tmp_path / "file").touch()
    assert machine.check_folder("runs folder", tmp_path / "file" / "runs").level == "problem"


def test_a_container_with_less_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"cpu.max": "50000 100000", "memory.max": "3000000", "memory.current": "1000000"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.processors() == 1
    assert machine.memory_bytes() == 2_000_000


def experiment_file(tiny: TinyCohort, folder: Path, **changes: str) -> Path:
    text = (REPOSITORY / "experiments" / "pretrain_mae_smoke.yaml").read_text()
    text = text.replace("runs/smoke/cohort/manifest.csv", str(tiny.manifest)).replace(
        "runs/smoke/cache", str(tiny.cache)
    )
    text = text.replace("voxels: 48", "voxels: 24").replace("trainer: {", f"trainer: {{runs: {folder / 'runs'}, ")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "experiment.yaml"
    path.write_text(text)
    return path


def test_an_experiment_is_tried_and_told_its_batch_and_workers(tiny: TinyCohort, tmp_path: Path) -> None:
    found = list(check_experiment([experiment_file(tiny, tmp_path)], probe_s=0.5))
    assert levels(found).keys() == {"experiment", "run", "scans", "network", "batch", "workers"}
    assert not [finding for finding in found if finding.level == "problem"]
    said = {finding.subject: finding.said for finding in found}
    assert "12 scans to train on, 6 for validation" in said["scans"]
    assert "data.batch_size 4" in said["batch"]
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("old", "new", "subject"),
    [
        ("seed: 42", "sead: 42", "experiment"),
        ("manifest: ", "manifest: /no", "scans"),
        ("cache: ", "cache: /no", "scans"),
    ],
)
def test_what_an_experiment_lacks_is_found(
    tiny: TinyCohort, tmp_path: Path, old: str, new: str, subject: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = experiment_file(tiny, tmp_path, **{old: new})
    assert main(["doctor", "--config", str(path), "--runs", str(tmp_path), "--cache", str(tmp_path)]) == 1
    assert f"PROBLEM  {subject}" in capsys.readouterr().out


def test_the_probe_draws_the_right_conclusions(tiny: TinyCohort, tmp_path: Path) -> None:
    experiment = load_experiment([experiment_file(tiny, tmp_path)], ["--data.batch_size", "64"])
    measured = Measured({1: 0.1, 2: 0.2, 4: 0.4}, {1: 3e9, 2: 4e9, 4: 6e9})  # 2 GB and 1 GB a scan
    assert measured.largest(free_bytes=40e9, scans=1000) == 32
    assert measured.largest(free_bytes=40e9, scans=10) == 8
    assert Measured({2: 1.0}, {2: 1e9}, too_large=4).largest(40e9, 1000) == 2
    assert Measured({1: 1.0, 2: 1.0}, {1: 1e9, 2: 1e9 + 1}, too_large=4).largest(40e9, 1000) == 2
    batch, workers = said(measured, 0.25, 40e9, experiment, scans=1000)
    assert batch.level == "warning"
    assert batch.fix == "data.batch_size 32, trainer.accumulate_batches 2"
    assert workers.fix == f"data.workers {min(4, max(1, machine.processors() - 1))}"
    assert said(measured, 0.001, 40e9, experiment, scans=1000)[1].level == "ok"


def test_the_probe_goes_with_an_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--probe-s", "3"]) == 2
    assert "means nothing without --config" in capsys.readouterr().err


def test_packages_are_looked_at_before_torch_is_imported() -> None:
    """What is broken must be found by what doesn't need it."""
    source = Path(importlib.util.find_spec("fmct.checkup.packages").origin or "").read_text()  # type: ignore[union-attr]
    assert "import torch" not in source
