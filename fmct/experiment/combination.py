"""One run of a study: trained and evaluated by the ordinary commands, once, whatever happens in between."""

from __future__ import annotations

import gc
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from fmct.console.errors import UsageError
from fmct.console.quietly import Outcome, run_quietly
from fmct.experiment.config import Config
from fmct.experiment.loading import as_record
from fmct.experiment.runs import changes_since, first_of, is_begun, is_finished, run_folder
from fmct.experiment.schema import Experiment

FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def is_file_name(text: str) -> bool:
    """Say whether text can name a folder as it is."""
    return re.match(FILE_NAME, text) is not None


class EvaluationConfig(Config):
    """Scans that every finished run is evaluated on, as `fmct evaluate` takes them."""

    name: str = Field(pattern=FILE_NAME, description="names the evaluation")
    data: Path = Field(description="manifest with labels")
    split: str = Field("test", description="split to evaluate; `all` takes every row")
    sites: tuple[str, ...] = Field((), description="only these sites; none: all")
    cache: Path | None = Field(None, description="cache of its scans; null: the run's")

    def folder(self, run: Path) -> Path:
        """Return where a run's evaluation is."""
        return run / "evaluations" / self.name

    def is_done(self, run: Path) -> bool:
        """Say whether a run has been evaluated on just these scans."""
        folder = self.folder(run)
        if not (folder / "predictions.parquet").exists() or not (folder / "metrics.json").exists():
            return False
        data = json.loads((folder / "metrics.json").read_text(encoding="utf-8")).get("data", {})
        asked = {"manifest": str(self.data), "split": self.split, "sites": list(self.sites)}
        return {name: data.get(name) for name in asked} == asked

    def command(self, run: Path) -> list[str]:
        """Return the command that evaluates a run."""
        arguments = ["evaluate", str(run), "--data", str(self.data), "--split", self.split, "--name", self.name]
        arguments += ["--sites", ",".join(self.sites)] if self.sites else []
        return arguments + (["--cache", str(self.cache)] if self.cache else [])


@dataclass(frozen=True)
class Combination:
    """One run of a study.

    Attributes:
        experiment: what is run, complete.
        configs: the files that it comes from.
        flags: what is laid over them on the command line.
        values: what tells it from the other runs, as results show it.
        evaluations: what it is evaluated on, in turn.
        more: flags of `fmct evaluate`.
        keeps_weights: whether its weight package stays once it is evaluated.
    """

    experiment: Experiment
    configs: Sequence[Path]
    flags: Sequence[str]
    values: Mapping[str, Any]
    evaluations: Sequence[EvaluationConfig] = ()
    more: Sequence[str] = ()
    keeps_weights: bool = True

    @property
    def name(self) -> str:
        """The run's name."""
        return self.experiment.name

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return run_folder(self.experiment)

    @property
    def log(self) -> Path:
        """Where what its commands print is kept; beside the runs, for a run that fails may have no folder."""
        return self.folder.parent / "logs" / f"{self.name}.log"

    @property
    def has_weights(self) -> bool:
        """Whether its weight package is there, whole."""
        return is_finished(self.folder) and (self.folder / "weights" / "SHA256SUMS").exists()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        evaluated = all(evaluation.is_done(self.folder) for evaluation in self.evaluations)
        trained = self.has_weights if self.keeps_weights else is_finished(self.folder)
        return trained and evaluated

    def training(self) -> list[str]:
        """Return the command that trains it; it starts over where its weights are gone."""
        configs = [word for path in self.configs for word in ("--config", str(path))]
        gone = is_finished(self.folder) and not self.has_weights
        return ["fit", *configs, *self.flags, *(["--fresh"] if gone else [])]

    def commands(self) -> list[list[str]]:
        """Return all commands of this run, done or not."""
        return [self.training(), *([*one.command(self.folder), *self.more] for one in self.evaluations)]

    def run(self) -> Outcome:
        """Do what is left to do."""
        if not self.has_weights and not self.is_done:
            trainer = self.experiment.trainer
            outcome = run_quietly(self.training(), self.log, own_process=trainer.devices != 1 or trainer.nodes != 1)
            if not outcome.ok:
                return outcome
        for evaluation in self.evaluations:
            if not evaluation.is_done(self.folder):
                outcome = run_quietly([*evaluation.command(self.folder), *self.more], self.log)
                if not outcome.ok:
                    return outcome
        if not self.keeps_weights:
            shutil.rmtree(self.folder / "weights", ignore_errors=True)
        return Outcome(0)


def check_unchanged(combinations: Sequence[Combination]) -> None:
    """Check that the runs that are there already are runs of these configurations.

    Raises:
        UsageError: when one was made with another, listing what differs.
    """
    for one in combinations:
        changes = changes_since(one.folder, as_record(one.experiment)) if is_begun(one.folder) else []
        if changes:
            raise UsageError(
                f"the run exists with another configuration ({first_of(changes)})",
                one.folder,
                "give the study another name, or start it over with --fresh (the old folder is kept)",
            )


def free_memory() -> None:
    """Free what a run in this process has left: a trainer and its task hold each other."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
