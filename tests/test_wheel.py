"""A wheel of fmct works by itself, away from the clone; `slow`, for it makes an environment."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY


def build(folder: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, REPOSITORY],
        check=True,
    )
    (wheel,) = folder.glob("fmct-*.whl")
    return wheel


@pytest.mark.slow
def test_a_wheel_holds_the_experiments_and_runs_from_a_clean_environment(tmp_path: Path) -> None:
    wheel = build(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    experiments = [path.relative_to(REPOSITORY) for path in (REPOSITORY / "experiments").rglob("*.yaml")]
    assert {f"fmct/shipped_{path}" for path in experiments} <= set(names)
    assert not [name for name in names if name.startswith("tests/")]
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def said(*words: object) -> str:
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
        return done.stdout

    for package in ("torch", wheel):
        said(python, "-m", "pip", "install", "-q", "-c", REPOSITORY / "constraints.txt", package)
    run = tmp_path / "env" / "bin" / "fmct"
    assert said(run, "--version").strip() in wheel.name
    folder = Path(said(python, "-c", "from fmct.experiment.shipped import experiments_folder as f; print(f())").strip())
    assert folder.name == "shipped_experiments"
    printed = said(run, "fit", "--config", folder / "pretrain_mae_smoke.yaml", "--print-config")
    assert "mask_ratio: 0.75" in printed
    assert "Ready" in said(run, "doctor")


def commit(folder: Path) -> None:
    git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(("way", "version"), [("archive", "0.1.0"), ("untagged", "0.1.1.dev1+g"), ("tagged", "3.2.1")])
def test_the_version_comes_from_tags_and_there_is_one_without(tmp_path: Path, way: str, version: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    archive = subprocess.run(["git", "-C", REPOSITORY, "archive", "HEAD"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "x", "-C", source], input=archive, check=True)
    if way != "archive":
        commit(source)
    if way == "tagged":
        subprocess.run(["git", "-C", source, "tag", "v3.2.1"], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("fmct-*.whl")
    assert wheel.name.startswith(f"fmct-{version}")
