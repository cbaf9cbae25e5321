"""A run, the run that made the weights it began with, and so on: what the weights have seen in all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from fmct.console.errors import UsageError
from fmct.console.files import sha256
from fmct.data.datamodule import ScanDataModule
from fmct.experiment.loading import from_record
from fmct.experiment.run_record import EXPERIMENT, read_experiment
from fmct.experiment.schema import Experiment
from fmct.models.package_files import WEIGHTS, package_folder, read_config
from fmct.release.training_facts import StartedFrom, TrainingFacts, read_facts


@dataclass(frozen=True)
class Ancestor:
    """One step of the lineage.

    Attributes:
        name: of the experiment, or of the package.
        experiment: what was run; None where there is only a package.
        data: its scans; None where they can't be read any more.
        package_facts: what a package says it learned from, where there is no run.
        unknown: why it isn't known what it learned from; empty where it is.
        weights: the package of this step that the next one began with; None for the run itself.
        parent: what it began with.
    """

    name: str
    experiment: Experiment | None
    data: ScanDataModule | None
    package_facts: TrainingFacts | None
    unknown: str
    weights: Path | None
    parent: Ancestor | None

    @cached_property
    def facts(self) -> TrainingFacts | None:
        """What it learned from; None where that isn't known."""
        if self.experiment is None or self.data is None:
            return self.package_facts
        return TrainingFacts.of(self.experiment, self.data, self.parent.as_start if self.parent else None)

    @property
    def as_start(self) -> StartedFrom:
        """How the next step names this one."""
        checksum = sha256(self.weights / WEIGHTS) if self.weights else None
        return StartedFrom(name=self.name, weights_sha256=checksum, training=self.facts)

    @property
    def all(self) -> list[Ancestor]:
        """This step and all before it."""
        return [self, *(self.parent.all if self.parent else [])]


def lineage(run: Path, weights: Path | None = None) -> Ancestor:
    """Follow a run back through the weights that it began with.

    Args:
        run: a run's folder.
        weights: its package, where another run began with it.

    Raises:
        UsageError: when the folder is no run.
    """
    record = read_experiment(run)
    try:
        experiment = from_record(record)
    except ValidationError as error:
        name, why = str(record.get("name", run.name)), f"its configuration is of another version ({error.title})"
        return Ancestor(name, None, None, None, why, weights, None)
    start = getattr(experiment.task, "weights", None)
    parent = origin(start) if start else None
    try:
        data = experiment.data.build(experiment.labels, experiment.seed)
    except UsageError as error:
        return Ancestor(experiment.name, experiment, None, None, error.what, weights, parent)
    return Ancestor(experiment.name, experiment, data, None, "", weights, parent)


def origin(weights: Path) -> Ancestor:
    """Follow weights back to the run that made them, or to what their package says of itself."""
    try:
        folder = package_folder(weights)
        name = read_config(folder).name
        if (folder.parent / EXPERIMENT).is_file():
            return lineage(folder.parent, folder)
        facts = read_facts(folder)
    except UsageError as error:
        return Ancestor("weights that are gone", None, None, None, error.what, None, None)
    unknown = "" if facts else "its package doesn't say"
    return Ancestor(name, None, None, facts, unknown, folder, None)
