"""What the README says is so."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from conftest import REPOSITORY, is_sweep

from fmct.cli import COMMANDS
from fmct.data.manifest import COLUMNS
from fmct.data.preprocessing import IsotropicSettings
from fmct.data.rejection import RejectCode

README = (REPOSITORY / "README.md").read_text()
ABOUT_MANIFESTS = (REPOSITORY / "data_manifests" / "README.md").read_text()
MAKEFILE = (REPOSITORY / "Makefile").read_text()


def test_every_reject_code_has_its_sentence() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.+) \|$", ABOUT_MANIFESTS, re.MULTILINE))
    assert rows == {code.name: code.value for code in RejectCode}
    assert f"each of the {len(rows)} codes" in README


def test_every_command_is_in_the_table_and_every_one_there_exists() -> None:
    rows = re.findall(r"^\| `fmct ([a-z-]+)", README, re.MULTILINE)
    assert set(rows) == set(COMMANDS)


def test_every_make_target_exists() -> None:
    named = set(re.findall(r"`?make ([a-z][a-z-]*)", README))
    targets = {t for line in re.findall(r"^([a-z][a-z -]*):", MAKEFILE, re.MULTILINE) for t in line.split()}
    assert named <= targets
    assert {"help", "setup", "demo", "test", "check", "pretrain", "finetune", "smoke", "report"} <= targets


def test_every_file_and_experiment_named_exists() -> None:
    for path in re.findall(r"\]\(([A-Za-z/._-]+)\)", README) + re.findall(r"experiments/[a-z0-9_/]+\.yaml", README):
        assert (REPOSITORY / path).exists(), path
    for name in re.findall(r"EXP=(\w+)", README):
        assert (REPOSITORY / "experiments" / f"{name}.yaml").exists(), name


def test_the_stated_preprocessing_is_the_default() -> None:
    settings = IsotropicSettings()
    assert f"{settings.spacing_mm:g} mm" in README
    assert f"{settings.shape_voxels}³" in README
    assert f"{settings.head_height_mm:g} mm down from the vertex" in README
    assert f"−{-settings.hu_min}..{settings.hu_max}" in README


def test_every_column_of_a_manifest_is_explained() -> None:
    columns = re.findall(r"^\| `([a-z_]+)` \|", ABOUT_MANIFESTS, re.MULTILINE)
    assert tuple(columns) == COLUMNS


def test_the_readme_is_short_and_says_what_it_is_not_for() -> None:
    assert len(README.splitlines()) <= 250
    assert "no diagnosis may rest on it" in README[:800]


def purpose(path: Path) -> str:
    """The first sentence of an experiment file's head comment."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    text = " ".join(line.lstrip("# ").strip() for line in lines if not line.startswith("# yaml-language-server:"))
    return re.split(r"(?<=[.!?]) (?=[A-Z`(])", text)[0].replace("|", r"\|")


def test_the_table_of_experiments_is_current() -> None:
    folder = REPOSITORY / "experiments"
    files = sorted(folder.rglob("*.yaml"), key=lambda path: (path.parent != folder, str(path)))
    files.sort(key=is_sweep)  # in a table of their own, after the others
    expected = [f"| `{path.relative_to(folder).with_suffix('')}` | {purpose(path)} |" for path in files]
    rows = [line for line in (folder / "README.md").read_text().splitlines() if line.startswith("| `")]
    assert rows == expected, "the table should be\n" + "\n".join(expected)
