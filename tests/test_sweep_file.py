"""Sweep files: strict reading, stable names, stages that build on the right runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import is_sweep
from study_cohort import EXPERIMENTS

from fmct.cli import main
from fmct.console.errors import UsageError
from fmct.experiment.combination import Combination
from fmct.experiment.grid import combinations_of
from fmct.experiment.sweep_file import read_sweep

SWEEPS = [path for path in sorted(EXPERIMENTS.glob("*.yaml")) if is_sweep(path)]
CLASSIFIER = str(EXPERIMENTS / "classify_smoke.yaml")
PLAIN: dict[str, Any] = {
    "name": "plain",
    "configs": [CLASSIFIER],
    "grid": {"optimizer.lr": [0.001, 0.01], "seed": [0, 1]},
}
STAGES: dict[str, Any] = {
    "name": "staged",
    "stages": {
        "first": {"configs": [str(EXPERIMENTS / "pretrain_mae_smoke.yaml")], "set": {"data.batch_size": 2}},
        "second": {"configs": [CLASSIFIER], "weights_from": "first"},
    },
    "grid": {"first.data.fraction": ["scratch", 0.5], "first.optimizer.lr": [0.1, 0.2], "seed": [0, 1]},
}


def write(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def runs(folder: Path, content: dict[str, Any], *overlays: Path) -> dict[str, list[Combination]]:
    path = write(folder, content)
    return combinations_of(read_sweep(path), path, overlays)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_is_named_after_its_file_and_every_combination_is_valid(path: Path) -> None:
    sweep = read_sweep(path)
    assert sweep.name == path.stem
    stages = combinations_of(sweep, path, [EXPERIMENTS / "overlays" / "smoke.yaml"])
    everything = [one for combinations in stages.values() for one in combinations]
    assert len({one.folder for one in everything}) == len(everything)
    assert all(one.experiment.trainer.max_steps == 2 for one in everything)  # an overlay wins over `set`


def test_names_are_readable_and_the_values_are_in_the_experiments(tmp_path: Path) -> None:
    (found,) = runs(tmp_path, PLAIN).values()
    assert [one.name for one in found] == ["lr-0.001_seed-0", "lr-0.001_seed-1", "lr-0.01_seed-0", "lr-0.01_seed-1"]
    assert [(one.experiment.optimizer.lr, one.experiment.seed) for one in found] == [
        (0.001, 0), (0.001, 1), (0.01, 0), (0.01, 1),
    ]  # fmt: skip
    assert {str(one.folder.parent) for one in found} == {"runs/plain"}
    assert found[1].values == {"optimizer.lr": 0.001, "seed": 1}


def test_named_values_and_lists_make_names(tmp_path: Path) -> None:
    sites = {"both": ["site_a", "site_b"], "one": ["site_a"]}
    grid = {"data.sites": sites, "task.labels": [["ICH"], ["ICH", "SDH"]]}
    (found,) = runs(tmp_path, PLAIN | {"grid": grid}).values()
    assert [one.name for one in found] == [
        "both_labels-ICH",
        "both_labels-ICH-SDH",
        "one_labels-ICH",
        "one_labels-ICH-SDH",
    ]
    assert found[1].experiment.data.sites == ("site_a", "site_b")
    assert found[1].experiment.labels == ("ICH", "SDH")
    assert found[1].values == {"data.sites": "both", "task.labels": "ICH-SDH"}


def test_keys_of_one_name_are_told_apart(tmp_path: Path) -> None:
    (found,) = runs(tmp_path, PLAIN | {"grid": {"seed": [1], "data.fraction_seed": [2]}}).values()
    assert found[0].name == "seed-1_fraction_seed-2"
    (found,) = runs(tmp_path, PLAIN | {"grid": {"task.head.kind": ["linear"], "backbone.kind": ["vit3d"]}}).values()
    assert found[0].name == "head.kind-linear_backbone.kind-vit3d"


def test_a_later_stage_starts_from_the_run_of_the_same_values(tmp_path: Path) -> None:
    stages = runs(tmp_path, STAGES)
    first, second = stages["first"], stages["second"]
    assert [one.name for one in first] == [
        f"first.fraction-0.5_first.lr-{lr}_seed-{seed}" for lr in (0.1, 0.2) for seed in (0, 1)
    ]
    assert all(one.experiment.data.batch_size == 2 for one in first)
    assert all(one.experiment.data.batch_size == 4 for one in second)
    scratch = [one for one in second if one.experiment.task.weights is None]  # type: ignore[union-attr]
    assert [one.values["seed"] for one in scratch] == [0, 1]  # once per seed, whatever the values of what isn't run
    assert all(one.values["first.optimizer.lr"] == "scratch" for one in scratch)
    folders = {one.folder / "weights": one for one in first}
    started = [one for one in second if one not in scratch]
    assert len(started) == 4
    for one in started:
        source = folders[one.experiment.task.weights]  # type: ignore[union-attr,index]
        assert source.experiment.seed == one.experiment.seed
        assert source.experiment.optimizer.lr == one.values["first.optimizer.lr"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"gird": {}}, ["unknown key gird", "did you mean grid?"]),
        ({"grid": {}}, ["grid"]),
        ({"grid": {"optimizer.lrr": [1]}}, ["unknown key optimizer.lrr", "did you mean optimizer.lr?"]),
        ({"grid": {"seed": []}}, ["seed has no value"]),
        ({"grid": {"name": ["a"]}}, ["name is set by the sweep itself"]),
        ({"grid": {"seed": [1, 1]}}, ["two values of seed would both be called 1", "{NAME: VALUE"]),
        ({"grid": {"data.fraction": ["scratch"]}}, ["can be scratch only where"]),
        ({"grid": {"optimizer.lr": [-1]}}, ["optimizer.lr", "greater than 0", "the combination optimizer.lr = -1"]),
        ({"set": {"seed": 1}}, ["set: seed has values in the grid too"]),
        ({"set": {"optimizer.wight_decay": 1}}, ["did you mean optimizer.weight_decay?"]),
        ({"transfer": "data.sites"}, ["transfer: data.sites is no key of the grid"]),
        ({"evaluate": [{"name": "a", "dta": "x"}]}, ["unknown key evaluate.0.dta", "did you mean data?"]),
        ({"evaluate": [{"name": "a", "data": "x"}] * 2}, ["two evaluations have one name"]),
        ({"configs": ["classify_smok.yaml"]}, ["classify_smok.yaml"]),
        ({"configs": []}, ["give either configs or stages"]),
        ({"name": "../x"}, ["name"]),
    ],
)
def test_wrong_files_are_three_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], expected: list[str]
) -> None:
    assert main(["sweep", str(write(tmp_path, PLAIN | change)), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in expected), error
    assert len(error.strip().splitlines()) == 3


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ({"second": {"configs": [CLASSIFIER], "weights_from": "frist"}}, "is no earlier stage"),
        ({"second": {"configs": [CLASSIFIER], "weights_frm": "first"}}, "did you mean weights_from?"),
        ({"data": {"configs": [CLASSIFIER]}}, "data can't name a stage"),
        ({"second": {"configs": [CLASSIFIER], "weights_from": "first", "set": {"task.weights": "x"}}}, "weights_from"),
    ],
)
def test_wrong_stages_are_refused(tmp_path: Path, stages: dict[str, Any], expected: str) -> None:
    content = STAGES | {"stages": {"first": STAGES["stages"]["first"]} | stages, "grid": {"seed": [0]}}
    with pytest.raises(UsageError) as caught:
        read_sweep(write(tmp_path, content))
    assert expected in str(caught.value)


def test_a_dry_run_prints_the_commands_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = PLAIN | {"evaluate": [{"name": "out", "data": "m.csv", "sites": ["site_b"], "cache": "c"}]}
    assert main(["sweep", str(write(tmp_path, content)), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert lines[0] == (
        f"fmct fit --config {CLASSIFIER} --name lr-0.001_seed-0 --trainer.runs runs/plain --optimizer.lr=0.001 --seed=0"
    )
    assert lines[1] == (
        "fmct evaluate runs/plain/lr-0.001_seed-0 --data m.csv --split test --name out --sites site_b --cache c "
        "--batch-size 8 --workers 0 --bootstrap 2000"
    )
    assert main(["sweep", "sweep.yaml", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1][:3] == ["fmct", "evaluate", "runs/plain/lr-0.001_seed-0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep.yaml"]
