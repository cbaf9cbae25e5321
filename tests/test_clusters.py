"""Preprocessing with real processes that crash, hang, are killed and interrupted: no scan is lost, no byte differs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from deeds import SMALL, command, contents, environment, finish, preprocess, reads, reject_codes, write_cohort

from fmct.cli import main
from fmct.data.volumes import VolumeCache

SCANS = 12


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def expected(manifest: Path) -> dict[str, str]:
    """What a run in one process, without anything to protect it, makes."""
    finish(manifest, manifest.parent / "expected")
    return contents(manifest.parent / "expected")


def wait_until(true: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_only_the_scans_that_crash_or_hang_are_rejected(
    manifest: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    env = environment(tmp_path, n02="abort", n04="segfault", n05="hang", n07="error")
    done = preprocess(manifest, tmp_path / "cache", "--workers", "1", "--timeout-s", "2", env=env)
    assert done.returncode == 3, done.stderr
    rejects = reject_codes(tmp_path / "cache")
    assert {name: code for name, (code, _) in rejects.items()} == {
        "n02": "CRASHED",
        "n04": "CRASHED",
        "n05": "TIMEOUT",
        "n07": "FAILED",
    }
    assert rejects["n02"][1] == "died of SIGABRT in sitecustomize.py, line 7"
    assert "SIGSEGV" in rejects["n04"][1]
    assert rejects["n05"][1] == "not done after 2 s in sitecustomize.py, line 11"
    assert "DOE" not in rejects["n07"][1]
    assert len(VolumeCache.open(tmp_path / "cache")) == SCANS - 4
    assert set(reads(tmp_path).values()) == {1}
    finish(manifest, tmp_path / "cache", "--retry-rejected")
    assert contents(tmp_path / "cache") == expected


def test_a_worker_that_is_killed_loses_no_scan(manifest: Path, expected: dict[str, str], tmp_path: Path) -> None:
    env = environment(tmp_path, **{"*": "sleep 0.3"})
    line = command(manifest, tmp_path / "cache", "--workers", "2")
    with subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        wait_until(lambda: reads(tmp_path).total() >= 3)
        children = psutil.Process(run.pid).children(recursive=True)
        guarded = [child for child in children if "fmct.data.guarded_worker" in child.cmdline()]
        assert len(guarded) == 2
        guarded[0].parent().kill()
        out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert "12 scans cached" in out
    assert contents(tmp_path / "cache") == expected
    wait_until(lambda: not psutil.pid_exists(guarded[0].pid))  # no orphan is left


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (signal.SIGTERM, "1"),
        pytest.param(signal.SIGINT, "2", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "1", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "2", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_goes_on(
    manifest: Path, expected: dict[str, str], tmp_path: Path, number: signal.Signals, workers: str
) -> None:
    env = environment(tmp_path, **{"*": "sleep 0.6"})
    line = command(manifest, tmp_path / "cache", "--workers", workers)
    with subprocess.Popen(
        line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        wait_until(lambda: reads(tmp_path).total() >= 5)
        start = time.monotonic()
        if number is signal.SIGINT:
            os.killpg(run.pid, number)  # a terminal sends Ctrl-C to all
        else:
            run.send_signal(number)
        _, err = run.communicate(timeout=60)
        seconds = time.monotonic() - start
    assert seconds < 5
    assert run.returncode == 75, err
    assert "run the same command again to go on" in err.splitlines()[-1]
    assert "Traceback" not in err
    done = len(VolumeCache.open(tmp_path / "cache"))
    assert 1 <= done < SCANS
    finish(manifest, tmp_path / "cache")
    assert contents(tmp_path / "cache") == expected


@contextmanager
def scheduler(folder: Path, env: dict[str, str], workers: int = 2) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a scheduler and workers on loopback, as a user would."""
    file = folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    where = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(file)]
    line = [sys.executable, "-m", "distributed.cli.dask_scheduler", *where]
    with subprocess.Popen(line, **quiet) as main:  # type: ignore[call-overload]
        processes = [main]
        try:
            wait_until(file.exists)
            where = ["--scheduler-file", str(file), "--local-directory", str(folder / "scratch"), "--nthreads", "1"]
            line = [sys.executable, "-m", "distributed.cli.dask_worker", *where, "--no-nanny", "--no-dashboard"]
            processes += [subprocess.Popen(line, env=env, **quiet) for _ in range(workers)]  # type: ignore[call-overload]
            yield str(file), main
        finally:
            for process in processes:
                process.kill()
            for process in processes[1:]:
                process.wait()


def test_a_running_scheduler_makes_the_same_cache(manifest: Path, expected: dict[str, str], tmp_path: Path) -> None:
    env = environment(tmp_path, n03="abort", **{"*": "sleep 0.1"})
    with scheduler(tmp_path, env) as (file, _):
        address = json.loads(Path(file).read_text())["address"]
        done = preprocess(manifest, tmp_path / "cache", "--scheduler", address, "--json")
        assert done.returncode == 3, done.stderr
        outcome = json.loads(done.stdout)
        assert (outcome["cached"], outcome["rejected"]) == (SCANS - 1, {"CRASHED": 1})
        assert outcome["where"] == f"the workers of {address}"
    finish(manifest, tmp_path / "cache", "--retry-rejected")
    assert contents(tmp_path / "cache") == expected


@pytest.mark.parametrize(
    ("deeds", "said"),
    [
        ({"fmct": "missing"}, "workers can't import fmct"),
        ({"hidden": "{cache}"}, "workers don't see the cache"),
        pytest.param({"fmct": "old"}, "workers have fmct 0.0.1, this is", marks=pytest.mark.slow),
        pytest.param({"hidden": "{root}"}, "workers don't see the scans' folder", marks=pytest.mark.slow),
    ],
)
def test_workers_that_can_not_do_the_work_are_one_clear_error(
    manifest: Path, tmp_path: Path, deeds: dict[str, str], said: str
) -> None:
    places = {"root": manifest.parent, "cache": tmp_path / "cache"}
    env = environment(tmp_path, **{name: deed.format(**places) for name, deed in deeds.items()})
    with scheduler(tmp_path, env, workers=1) as (file, _):
        done = preprocess(manifest, tmp_path / "cache", "--scheduler", file)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Fix: " in done.stderr
    assert not reject_codes(tmp_path / "cache")


@pytest.mark.slow
def test_a_scheduler_that_dies_ends_the_run_and_loses_nothing(
    manifest: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    env = environment(tmp_path, **{"*": "sleep 0.5"})
    with scheduler(tmp_path, env, workers=1) as (file, process):
        line = command(manifest, tmp_path / "cache", "--scheduler", file)
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
            wait_until(lambda: reads(tmp_path).total() >= 5)
            process.kill()
            _, err = run.communicate(timeout=90)
    assert run.returncode == 1, err
    assert "the scheduler is gone" in err
    assert "Traceback" not in err
    done = len(VolumeCache.open(tmp_path / "cache"))
    assert done >= 4
    finish(manifest, tmp_path / "cache")
    assert contents(tmp_path / "cache") == expected


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_run_that_is_killed_makes_no_volume_twice(
    manifest: Path, expected: dict[str, str], tmp_path: Path, workers: str
) -> None:
    env = environment(tmp_path, **{"*": "sleep 0.6"})
    with subprocess.Popen(command(manifest, tmp_path / "cache", "--workers", workers), env=env) as run:
        wait_until(lambda: reads(tmp_path).total() >= 5)
        children = psutil.Process(run.pid).children(recursive=True)
        run.kill()
    wait_until(lambda: not any(child.is_running() for child in children))  # nothing goes on unseen
    (cache,) = (tmp_path / "cache").iterdir()
    made = {path: path.stat().st_mtime_ns for path in cache.rglob("[!.]*.b2nd")}
    assert len(made) >= 4
    assert len(VolumeCache.open(cache)) < SCANS
    (cache / "volumes" / "00").mkdir(exist_ok=True)
    half = cache / "volumes" / "00" / ".half.0123abcd.b2nd"
    half.write_bytes(b"half")
    assert main(["preprocess", str(manifest), "--cache", str(tmp_path / "cache"), *SMALL]) == 0
    assert all(path.stat().st_mtime_ns == written for path, written in made.items())
    half.unlink()
    assert contents(tmp_path / "cache") == expected
