"""What a run starts from, as flags of the experiment: random weights, a package, or what an overlay says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fmct.console.errors import UsageError, require_file
from fmct.experiment.combination import FILE_NAME, is_file_name
from fmct.experiment.flags import known_fields, literals_in
from fmct.experiment.loading import load_experiment
from fmct.experiment.schema import Experiment
from fmct.models.packaged import package_folder, read_config

SCRATCH = "scratch"


@dataclass(frozen=True)
class Start:
    """A named start of runs that are compared.

    Attributes:
        name: its name in results; `scratch` is random weights.
        source: a weight package or a run, or a YAML file laid over the experiment; None for scratch.
    """

    name: str
    source: Path | None = None

    @classmethod
    def of(cls, text: str) -> Start:
        """Read `scratch` or `NAME=PATH`.

        Raises:
            UsageError: when it is neither, or nothing is at the path.
        """
        where = f"--init {text}"
        name, equals, path = text.partition("=")
        if not is_file_name(name):
            raise UsageError(f"{name!r} can't name an initialization", where, f"names are like {FILE_NAME}")
        if name == SCRATCH:
            if equals:
                raise UsageError("scratch is random weights and takes no path", where, "give the weights another name")
            return cls(name)
        if not path:
            raise UsageError(f"{name} has no weights", where, f"write --init {name}=FOLDER, or --init {SCRATCH}")
        source = require_file(Path(path), "what the initialization names", "give a run, a weight package or a .yaml")
        return cls(name, source if source.suffix in {".yaml", ".yml"} else package_folder(source))

    @property
    def overlay(self) -> list[Path]:
        """The file to lay over the experiment, if it is one."""
        return [self.source] if self.source and self.source.is_file() else []

    def flags(self, configs: Sequence[Path], flags: Sequence[str] = ()) -> list[str]:
        """Return the flags that make an experiment start here.

        Backbone and input are taken over from a package: other ones couldn't take its weights.

        Args:
            configs: the experiment's files.
            flags: what is laid over them.
        """
        if self.overlay:
            return []
        if self.source is None:
            return from_scratch(load_experiment(configs, flags))
        config = read_config(self.source)
        experiment = load_experiment(configs, flags)
        mode = ["--task.mode=finetune"] if getattr(experiment.task, "mode", "") == SCRATCH else []
        taken: list[str] = []
        for section in ("backbone", "input"):
            theirs = getattr(config, section)
            if theirs != getattr(experiment, section):
                taken.append(f"--{section}={theirs.model_dump_json()}")
        return [f"--task.weights={self.source}", *mode, *taken]


def from_scratch(experiment: Experiment) -> list[str]:
    """Return the flags by which a classifier starts from random weights.

    A mode that trains everything becomes `scratch` where there is such a mode; one that leaves the backbone as it is
    keeps it random: what a probe makes of random features is the baseline of what it makes of learned ones.
    """
    modes = literals_in(known_fields(Experiment)["task.mode"])
    trains_everything = getattr(experiment.task, "mode", "") in {"finetune", SCRATCH}
    return ["--task.weights=null", *(["--task.mode=scratch"] if trains_everything and SCRATCH in modes else [])]
