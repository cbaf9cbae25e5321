"""JSON schemas of experiment files: current, named in every file, and true of every file."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from conftest import REPOSITORY, is_sweep

from fmct.cli import main
from fmct.experiment.json_schema import SCHEMA_FILES, FileKind, hint, schema_of
from fmct.experiment.shipped import experiments_folder

FOLDER = REPOSITORY / "experiments"
FILES = sorted(FOLDER.rglob("*.yaml"))


def kind_of(path: Path) -> FileKind:
    if "overlays" in path.parts:
        return "overlay"
    return "sweep" if is_sweep(path) else "experiment"


@pytest.mark.parametrize("kind", SCHEMA_FILES)
def test_the_schemas_are_current(kind: FileKind, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--of", kind]) == 0
    fix = f"run `fmct schema --of {kind} > experiments/{SCHEMA_FILES[kind]}`"
    assert (FOLDER / SCHEMA_FILES[kind]).read_text() == capsys.readouterr().out, fix


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_file_names_its_schema_and_keeps_it(path: Path) -> None:
    expected = hint(kind_of(path), len(path.relative_to(FOLDER).parts) - 1)
    assert path.read_text().splitlines()[0] == expected, f"the first line of {path} should be: {expected}"
    assert (path.parent / expected.rpartition("=")[2]).resolve() == FOLDER / SCHEMA_FILES[kind_of(path)]
    jsonschema.validate(yaml.safe_load(path.read_text()), schema_of(kind_of(path)))


def test_the_schema_finds_mistakes() -> None:
    good = yaml.safe_load((FOLDER / "pretrain_mae_smoke.yaml").read_text())
    checker = jsonschema.Draft202012Validator(schema_of("experiment"))
    assert not list(checker.iter_errors(good))
    for mistake in ({"sead": 1}, {"seed": -1}, {"backbone": {"kind": "vit4d"}}, {"data": {"manifest": "m.csv"}}):
        assert list(checker.iter_errors(good | mistake)), mistake
    overlay = jsonschema.Draft202012Validator(schema_of("overlay"))
    assert not list(overlay.iter_errors({"seed": 1}))
    assert list(overlay.iter_errors({"sead": 1}))


def test_every_key_says_what_it_is_for_in_the_editor() -> None:
    text = json.dumps(schema_of("experiment"))
    assert "share of patches hidden from the encoder" in text


def test_the_files_are_found_in_a_clone() -> None:
    assert experiments_folder() == FOLDER
