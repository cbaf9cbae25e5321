"""From a sweep file to its runs: every combination of the grid's values, stage by stage."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmct.console.errors import UsageError
from fmct.experiment.combination import Combination
from fmct.experiment.loading import check_yaml, load_experiment
from fmct.experiment.starting import SCRATCH, from_scratch
from fmct.experiment.sweep_file import SweepConfig

LONGEST_NAME = 120


@dataclass(frozen=True)
class Value:
    """A value of the grid.

    Attributes:
        text: how names of runs write it.
        value: what it is.
        named: whether the sweep file gives the text.
    """

    text: str
    value: Any
    named: bool

    @property
    def shown(self) -> Any:
        """How results show it: its name if it has one, plain values as they are, others as text."""
        plain = self.value is None or isinstance(self.value, bool | int | float | str)
        return self.value if plain and not self.named else self.text


Choice = dict[str, Value]


def combinations_of(
    sweep: SweepConfig, source: Path, overlays: Sequence[Path] = (), runs: Path | None = None
) -> dict[str, list[Combination]]:
    """Return the runs of every stage, all of them checked.

    Args:
        sweep: the sweep.
        source: its file, for messages.
        overlays: files laid over the configs of every stage, and over what the sweep file sets for all runs of one.
        runs: folder that holds the sweep's folder; None: `trainer.runs` of the first experiment.

    Raises:
        UsageError: naming the first combination that makes no valid experiment, or two values that read alike.
    """
    values = {key: values_of(key, given, source) for key, given in sweep.grid.items()}
    if runs is None:
        first = next(iter(sweep.all_stages().values()))
        runs = load_experiment([*first.configs, *overlays]).trainer.runs
    laid_over = {key for path in overlays for key in dotted_keys(check_yaml(path))}
    stages: dict[str, list[Combination]] = {}
    for name, stage in sweep.all_stages().items():
        configs = [*stage.configs, *overlays]
        folder = runs / sweep.name / name
        constants = {key: value for key, value in stage.set.items() if key not in laid_over}
        stages[name] = []
        for choice in choices(sweep, name, values):
            flags = ["--name", run_name(sweep, choice), "--trainer.runs", str(folder)]
            given = {sweep.bare(key): value.value for key, value in choice.items() if sweep.concerns(key, name)}
            for key, constant in {**constants, **given}.items():
                flags.append(f"--{key}={json.dumps(constant, ensure_ascii=False)}")
            try:
                if stage.weights_from is not None:
                    before = earlier(sweep, stage.weights_from, choice)
                    if before is None:
                        flags += from_scratch(load_experiment(configs, flags))
                    else:
                        run = runs / sweep.name / stage.weights_from / run_name(sweep, before)
                        flags.append(f"--task.weights={run / 'weights'}")
                experiment = load_experiment(configs, flags)
            except UsageError as error:
                values_here = ", ".join(f"{key} = {value.shown}" for key, value in choice.items())
                raise UsageError(error.what, f"{source}, the combination {values_here}", error.fix) from error
            shown = {key: choice[key].shown if key in choice else None for key in sweep.grid}
            stages[name].append(Combination(experiment, configs, flags, shown, stage.evaluate))
    return stages


def dotted_keys(section: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the keys of a YAML file, sections and all."""
    for key, value in section.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from dotted_keys(value, f"{prefix}{key}.")


def values_of(key: str, given: list[Any] | dict[str, Any], source: Path) -> list[Value]:
    """Return the values of a key with a text for each.

    Raises:
        UsageError: when two have one text.
    """
    if isinstance(given, dict):
        values = [Value(file_text(name), value, named=True) for name, value in given.items()]
    else:
        values = [Value(file_text(text_of(value)), value, named=False) for value in given]
    texts = [value.text for value in values]
    for text in texts:
        if texts.count(text) > 1:
            raise UsageError(
                f"grid: two values of {key} would both be called {text}",
                source,
                f"write each once, or name them: {key}: {{NAME: VALUE, ...}}",
            )
    return values


def choices(sweep: SweepConfig, stage: str, values: dict[str, list[Value]]) -> list[Choice]:
    """Return the combinations of the values that a stage's runs depend on: its own, and those of stages before it."""
    concerned = {None, *line_of(sweep, stage)}
    keys = [key for key in values if sweep.stage_of(key) in concerned]
    found: dict[str, Choice] = {}
    for picked in itertools.product(*(values[key] for key in keys)):
        choice = dict(zip(keys, picked, strict=True))
        without = {sweep.stage_of(key) for key, value in choice.items() if value.value == SCRATCH}
        if stage in without:
            continue
        for key, value in choice.items():  # where a stage isn't run, its other values make no difference
            if sweep.stage_of(key) in without:
                choice[key] = Value(SCRATCH, SCRATCH, named=value.named)
        found.setdefault(run_name(sweep, choice), choice)
    return list(found.values())


def line_of(sweep: SweepConfig, stage: str) -> list[str]:
    """Return a stage and those before it that its weights come from."""
    line = [stage]
    while sweep.all_stages()[line[-1]].weights_from is not None:
        line.append(str(sweep.all_stages()[line[-1]].weights_from))
    return line


def earlier(sweep: SweepConfig, stage: str, choice: Choice) -> Choice | None:
    """Return the part of a choice that says which run of an earlier stage it builds on; None: on none."""
    concerned = {None, *line_of(sweep, stage)}
    part = {key: value for key, value in choice.items() if sweep.stage_of(key) in concerned}
    skipped = any(value.value == SCRATCH and sweep.stage_of(key) == stage for key, value in part.items())
    return None if skipped else part


def run_name(sweep: SweepConfig, choice: Choice) -> str:
    """Name a run after its values: `fraction-0.1_seed-0`; a named value needs no key before it."""
    parts = [value.text if value.named else f"{short(sweep, key)}-{value.text}" for key, value in choice.items()]
    name = "_".join(parts) or "only"
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def short(sweep: SweepConfig, key: str) -> str:
    """Return the end of a key that no other key of its stage in the grid shares, after the stage's name."""
    stage = sweep.stage_of(key)
    others = [sweep.bare(other) for other in sweep.grid if other != key and sweep.stage_of(other) == stage]
    parts = sweep.bare(key).split(".")
    for length in range(1, len(parts) + 1):
        end = ".".join(parts[-length:])
        if not any(other == end or other.endswith(f".{end}") for other in others):
            break
    return f"{stage}.{end}" if stage else end


def text_of(value: Any) -> str:
    """Write a value: lists by their elements, nothing as null."""
    if isinstance(value, list):
        return "+".join(map(text_of, value))
    if isinstance(value, dict):
        return "+".join(f"{name}-{text_of(inner)}" for name, inner in value.items())
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def file_text(text: str) -> str:
    """Return text that the name of a run can hold."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", text).strip("-.").replace("+", "-") or "empty"
