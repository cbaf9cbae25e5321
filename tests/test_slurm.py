"""`fmct preprocess --slurm` with SLURM's commands replaced by ones that start the jobs here."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import fake_slurm
import pytest
from deeds import SMALL, contents, environment, finish, preprocess, reads, write_cohort

from fmct.cli import main
from fmct.console.errors import UsageError
from fmct.data.slurm import SlurmJobs, parse_slurm
from fmct.data.volumes import VolumeCache

pytest.importorskip("dask_jobqueue")
ASKED = "partition=cpu,cores=2,walltime=00:10:00,account=lab"


def with_slurm(env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return env | {"PATH": f"{fake_slurm.install(tmp_path)}{os.pathsep}{os.environ['PATH']}"}


def test_what_the_flag_says() -> None:
    assert parse_slurm(" cores=4, walltime=1-00:00:00,memory=64GB ,jobs=3") == SlurmJobs(
        cores=4, walltime="1-00:00:00", memory="64GB", jobs=3
    )
    for text, problem in (
        ("cores=4,walltme=01:00:00", "did you mean 'walltime'?"),
        ("cores=4,colour=red", "known keys: cores, walltime"),
        ("cores=4", "walltime is missing"),
        ("cores=four,walltime=01:00:00", "cores is 'four'"),
        ("cores=4,walltime=soon", "walltime is 'soon'"),
        ("cores,walltime=01:00:00", "cores has no value"),
    ):
        with pytest.raises(UsageError) as raised:
            parse_slurm(text)
        assert problem in str(raised.value)


def test_slurm_jobs_make_the_cache(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path, scans=4)
    finish(manifest, tmp_path / "serial")
    env = with_slurm(os.environ | {}, tmp_path)
    done = preprocess(manifest, tmp_path / "cache", "--slurm", f"{ASKED},jobs=2", "--json", env=env)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["cached"], outcome["where"]) == (6, "2 SLURM jobs of 2 cores")
    assert contents(tmp_path / "cache") == contents(tmp_path / "serial")
    scripts = [path.read_text() for path in (tmp_path / "slurm_state").glob("*.sh")]
    assert len(scripts) == 2
    for line in ("#SBATCH -p cpu", "#SBATCH -A lab", "#SBATCH --cpus-per-task=2", "#SBATCH -t 00:10:00", "--mem=8G"):
        assert all(line in script for script in scripts)
    assert sorted((tmp_path / "slurm_state" / "cancelled").read_text().split()) == ["1", "2"]


def test_what_slurm_refuses_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_cohort(tmp_path, scans=1)
    line = ["preprocess", str(manifest), "--cache", str(tmp_path / "cache"), *SMALL, "--slurm", ASKED]
    assert main(line) == 2
    assert "there is no `sbatch` here" in capsys.readouterr().err
    monkeypatch.setenv("PATH", with_slurm({}, tmp_path)["PATH"])
    (tmp_path / "slurm_state" / "refuse").touch()
    assert main(line) == 2
    assert "SLURM takes no job (sbatch: error: invalid partition specified: nowhere)" in capsys.readouterr().err
    assert main([*line, "--workers", "2"]) == 2
    assert "--workers and --slurm exclude each other" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert main(line) == 2
    assert "pip install 'fmct[slurm]'" in capsys.readouterr().err


@pytest.mark.slow
def test_jobs_whose_time_is_over_are_replaced(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path, scans=10)
    env = with_slurm(environment(tmp_path, **{"*": "sleep 5"}), tmp_path)
    (tmp_path / "slurm_state" / "walltime").write_text("30")
    done = preprocess(
        manifest, tmp_path / "cache", "--slurm", ASKED.replace("cores=2", "cores=1"), env=env, seconds=400
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "slurm_state").glob("*.sh"))) > 1
    assert len(VolumeCache.open(tmp_path / "cache")) == 12
    assert reads(tmp_path).total() < 20
