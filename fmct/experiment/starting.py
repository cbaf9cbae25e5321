"""What a run starts from, as flags of the experiment: random weights, a package, or what another file says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmct.console.errors import UsageError, require_file
from fmct.experiment.combination import FILE_NAME, is_file_name
from fmct.experiment.flags import known_fields, literals_in
from fmct.experiment.loading import check_yaml, load_experiment
from fmct.experiment.schema import Experiment
from fmct.models.packaged import package_folder, read_config

SCRATCH = "scratch"
AT_ONE_RATE = [f"--task.mode={SCRATCH}", "--task.backbone_lr_factor=1", "--optimizer.layer_decay=1"]
"""Flags by which a classifier that trains everything does so from random weights."""


@dataclass(frozen=True)
class Start:
    """A named start of runs that are compared.

    Attributes:
        name: its name in results; `scratch` is random weights.
        source: a weight package or a run, or a YAML file; None for random weights.
        probe: keys of `task.probe`, where the weights stay and a logistic regression is fitted on their features; None:
            the experiment's own mode.
    """

    name: str
    source: Path | None = None
    probe: Mapping[str, Any] | None = field(default=None, hash=False)

    @classmethod
    def of(cls, text: str) -> Start:
        """Read `scratch` or `NAME=PATH`.

        Raises:
            UsageError: when it is neither, or nothing is at the path.
        """
        where = f"--init {text}"
        name, equals, path = text.partition("=")
        check_name(name, where)
        if name == SCRATCH:
            if equals:
                raise UsageError("scratch is random weights and takes no path", where, "give the weights another name")
            return cls(name)
        if not path:
            raise UsageError(f"{name} has no weights", where, f"write --init {name}=FOLDER, or --init {SCRATCH}")
        source = require_file(Path(path), "what the initialization names", "give a run, a weight package or a .yaml")
        return cls(name, source if source.suffix in {".yaml", ".yml"} else package_folder(source))

    @classmethod
    def of_probe(cls, text: str, probe: Mapping[str, Any]) -> Start:
        """Read `NAME=PATH`, or `NAME=scratch` for random features.

        Raises:
            UsageError: when it is neither, or no weights are at the path.
        """
        where = f"--probe {text}"
        name, _, path = text.partition("=")
        check_name(name, where)
        if not path or name == SCRATCH:
            fix = f"write --probe NAME=FOLDER, or --probe NAME={SCRATCH} for random features"
            raise UsageError(f"{text} names no probe and its weights", where, fix)
        if path == SCRATCH:
            return cls(name, None, probe)
        source = require_file(Path(path), "what the probe names", "give a run or a weight package")
        return cls(name, package_folder(source), probe)

    def configs(self, configs: Sequence[Path]) -> list[Path]:
        """Return the experiment's files with the start's own: laid over them or, if whole, in the first's place.

        A file with `name` and `task` is a whole experiment.
        """
        if self.source is None or not self.source.is_file():
            return list(configs)
        whole = {"name", "task"} <= check_yaml(self.source).keys()
        return [self.source, *configs[1:]] if whole else [*configs, self.source]

    def flags(self, configs: Sequence[Path], flags: Sequence[str] = ()) -> list[str]:
        """Return the flags that make an experiment start here.

        Backbone and input are taken over from a package: other ones couldn't take its weights.

        Args:
            configs: the experiment's files, as `configs` gives them.
            flags: what is laid over them.
        """
        if self.source and self.source.is_file():
            return []
        probing = [] if self.probe is None else ["--task.mode=logreg", f"--task.probe={json.dumps(dict(self.probe))}"]
        if self.source is None:
            return probed_at_random(probing) if probing else from_scratch(load_experiment(configs, flags))
        config = read_config(self.source)
        experiment = load_experiment(configs, flags)
        mode = ["--task.mode=finetune"] if getattr(experiment.task, "mode", "") == SCRATCH and not probing else []
        taken: list[str] = []
        for section in ("backbone", "input"):
            theirs = getattr(config, section)
            if theirs != getattr(experiment, section):
                taken.append(f"--{section}={theirs.model_dump_json()}")
        return [f"--task.weights={self.source}", *mode, *probing, *taken]


def check_name(name: str, where: str) -> None:
    """Check that a start's name can be part of a folder's."""
    if not is_file_name(name):
        raise UsageError(f"{name!r} can't name an initialization", where, f"names are like {FILE_NAME}")


def probed_at_random(probing: Sequence[str]) -> list[str]:
    """Return the flags of a probe on the features of random weights: the baseline of one on learned features."""
    return ["--task.weights=null", *probing]


def from_scratch(experiment: Experiment) -> list[str]:
    """Return the flags by which a classifier starts from random weights.

    A mode that trains everything becomes `scratch` where there is such a mode, and all its layers learn at one rate: a
    lower one for the backbone spares what was learned, and would leave random weights nearly as they are. A mode that
    leaves the backbone as it is keeps it random: what a probe makes of random features is the baseline of what it makes
    of learned ones.
    """
    modes = literals_in(known_fields(Experiment)["task.mode"])
    trains_everything = getattr(experiment.task, "mode", "") in {"finetune", SCRATCH}
    return ["--task.weights=null", *(AT_ONE_RATE if trains_everything and SCRATCH in modes else [])]
