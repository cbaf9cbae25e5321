"""The sweep file: which experiments are run with which values, and what each run is evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from fmct.console.errors import UsageError, nearest
from fmct.experiment.combination import FILE_NAME, EvaluationConfig, is_file_name
from fmct.experiment.config import Config
from fmct.experiment.flags import known_fields, models_in
from fmct.experiment.loading import check_yaml
from fmct.experiment.schema import Experiment
from fmct.experiment.starting import SCRATCH

GIVEN = ("name", "trainer.runs")
"""Keys that the sweep sets itself."""


class StageConfig(Config):
    """Runs of one kind, for each combination of the grid's values that concern it."""

    configs: tuple[Path, ...] = Field(
        min_length=1, description="experiment file, then overlays; as seen from the sweep file"
    )
    set: dict[str, Any] = Field({}, description="keys that are the same in all runs, laid over the files")
    weights_from: str | None = Field(
        None, description="earlier stage, whose run with the same values gives the weights (task.weights)"
    )
    evaluate: tuple[EvaluationConfig, ...] = Field((), description="what each run is evaluated on")


class SweepConfig(Config):
    """A grid of runs; either `configs` and `evaluate`, or several `stages`."""

    name: str = Field(pattern=FILE_NAME, description="names the folder of the sweep's runs")
    configs: tuple[Path, ...] = Field((), description="experiment, then overlays, as seen from the sweep file")
    set: dict[str, Any] = Field({}, description="keys that are the same in all runs, laid over the files")
    evaluate: tuple[EvaluationConfig, ...] = Field((), description="what each run is evaluated on")
    stages: dict[str, StageConfig] = Field({}, description="stages by name, in the order in which they run")
    grid: dict[str, list[Any] | dict[str, Any]] = Field(
        min_length=1,
        description="values of the experiments' keys, listed, or named for results: {name: value}; a key of one stage "
        "has the stage's name before it. `scratch` as a value of an earlier stage: it isn't run, and what takes its "
        "weights starts from random ones",
    )
    transfer: str | None = Field(
        None, description="key of the grid that says what was trained on, under the names of evaluations: transfer.json"
    )

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> SweepConfig:
        if bool(self.configs) == bool(self.stages):
            raise ValueError("give either configs or stages")
        for key in ("evaluate", "set"):
            if self.stages and getattr(self, key):
                raise ValueError(f"{key} belongs to a stage where there are stages")
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> SweepConfig:
        earlier: list[str] = []
        for name, stage in self.stages.items():
            if not is_file_name(name) or "." in name or name in Experiment.model_fields:
                raise ValueError(f"stages: {name} can't name a stage: it is no plain word, or a section's name")
            if stage.weights_from is not None and stage.weights_from not in earlier:
                known = f"one of {', '.join(earlier)}" if earlier else "none, for this is the first stage"
                raise ValueError(f"stages.{name}.weights_from {stage.weights_from} is no earlier stage: use {known}")
            earlier.append(name)
        return self

    @model_validator(mode="after")
    def _names_are_distinct(self) -> SweepConfig:
        for name, stage in self.all_stages().items():
            names = [one.name for one in stage.evaluate]
            if len(set(names)) < len(names):
                raise ValueError(f"two evaluations{f' of {name}' if name else ''} have one name")
        return self

    @model_validator(mode="after")
    def _keys_are_known(self) -> SweepConfig:
        fields = known_fields(Experiment)
        known = [*fields, *(f"{stage}.{key}" for stage in self.stages for key in fields)]
        for key in self.grid:
            check_key(key, self.bare(key), known, "grid")
        for name, stage in self.all_stages().items():
            for key in stage.set:
                check_key(key, key, list(fields), f"stages.{name}.set" if name else "set")
                twice = [other for other in self.grid if self.bare(other) == key and self.concerns(other, name)]
                if twice:
                    raise ValueError(f"set: {key} has values in the grid too")
            if stage.weights_from and any(
                self.bare(key) == "task.weights" and self.concerns(key, name) for key in [*self.grid, *stage.set]
            ):
                raise ValueError(f"task.weights of stage {name} is set by weights_from")
        return self

    @model_validator(mode="after")
    def _values_make_sense(self) -> SweepConfig:
        for key, values in self.grid.items():
            if not values:
                raise ValueError(f"grid: {key} has no value")
            if SCRATCH in (values.values() if isinstance(values, dict) else values) and not self.starts_others(key):
                raise ValueError(f"grid: {key} can be {SCRATCH} only where another stage has weights_from its stage")
        if self.transfer is not None and self.transfer not in self.grid:
            raise ValueError(f"transfer: {self.transfer} is no key of the grid; use one of {', '.join(self.grid)}")
        return self

    def all_stages(self) -> dict[str, StageConfig]:
        """Return the stages; without any, one that has no name."""
        return self.stages or {"": StageConfig(configs=self.configs, set=self.set, evaluate=self.evaluate)}

    def stage_of(self, key: str) -> str | None:
        """Return the stage that a key of the grid belongs to; None: to all of them."""
        stage = key.split(".")[0]
        return stage if stage in self.stages else None

    def bare(self, key: str) -> str:
        """Return a key of the grid as the experiment file has it."""
        stage = self.stage_of(key)
        return key if stage is None else key.removeprefix(f"{stage}.")

    def concerns(self, key: str, stage: str) -> bool:
        """Say whether a key of the grid is a key of a stage's own experiments."""
        return self.stage_of(key) in {stage, None}

    def starts_others(self, key: str) -> bool:
        """Say whether a key belongs to a stage that another one takes its weights from."""
        return self.stage_of(key) in {stage.weights_from for stage in self.stages.values()} - {None}


def check_key(key: str, bare: str, known: Sequence[str], where: str) -> None:
    """Check that there is a key, and that it is for the sweep file to say."""
    if key not in known:
        guess = nearest(key, known)
        hint = f"did you mean {guess}?" if guess else "keys are section.key, as in the experiment file"
        raise ValueError(f"{where}: unknown key {key}; {hint}")
    if bare in GIVEN:
        raise ValueError(f"{where}: {key} is set by the sweep itself; leave it out")


def read_sweep(path: Path) -> SweepConfig:
    """Read a sweep file.

    Raises:
        UsageError: on a missing file, broken YAML, an unknown key (naming the nearest known one) or a wrong value.
    """
    content = check_yaml(path, "the sweep file")
    try:
        sweep = SweepConfig.model_validate(content)
    except ValidationError as error:
        first = min(
            error.errors(), key=lambda one: one["type"] != "extra_forbidden"
        )  # else what it stood for is missing
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = keys_beside(first["loc"])
            guess = nearest(str(first["loc"][-1]), known)
            fix = f"did you mean {guess}?" if guess else f"there can be: {', '.join(known)}"
            raise UsageError(f"unknown key {key}", path, fix) from error
        message = "is missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
        what, _, fix = message.partition("; ")
        fix = fix or ("add it" if first["type"] == "missing" else "change it; experiments/ has sweeps to start from")
        raise UsageError(f"{key + ': ' if key else ''}{what}", path, fix) from error
    stages = {
        name: stage.model_copy(update={"configs": beside(path, stage.configs)}) for name, stage in sweep.stages.items()
    }
    return sweep.model_copy(update={"configs": beside(path, sweep.configs), "stages": stages})


def beside(path: Path, configs: Sequence[Path]) -> tuple[Path, ...]:
    """Return files as seen from the folder of the sweep file."""
    return tuple(path.parent / config for config in configs)


def keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    """List the keys that there can be where pydantic found an unknown one."""
    model: type[Any] = SweepConfig
    for part in loc[:-1]:
        field = model.model_fields.get(str(part))
        inner = list(models_in(field.annotation)) if field else []
        model = inner[0] if inner else model
    return list(model.model_fields)
