"""Which runs a few-shot study has: for each start, label, k and draw, what is trained or probed, or why it can't be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fmct.console.errors import UsageError
from fmct.data.sampling import ShuffledSampling
from fmct.data.shots import ShotsConfig
from fmct.evaluation.few_shot import Shot
from fmct.experiment.combination import Combination, EvaluationConfig
from fmct.experiment.grid import file_text
from fmct.experiment.loading import load_experiment
from fmct.experiment.schema import Experiment
from fmct.experiment.starting import Start
from fmct.tasks.classifier import ClassifierConfig

QUICK = [
    *("--data.val_splits=[]", "--trainer.checkpoints=false", "--trainer.tensorboard=false"),
    *("--trainer.pictures_every_steps=0", "--trainer.devices=1", "--trainer.nodes=1", "--trainer.strategy=auto"),
]
"""How a run that lasts seconds is run: on one device, without validation, and over again if it is killed."""


@dataclass(frozen=True)
class Probing:
    """One frozen backbone, and the runs that are fitted on its features.

    Attributes:
        name: names its table of features.
        experiment: of mode logreg or knn, on all scans that patients are drawn from.
        shots: the runs.
    """

    name: str
    experiment: Experiment
    shots: list[Shot] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """The runs of a study.

    Attributes:
        trained: runs of `fmct fit`.
        probed: the others, by backbone.
        skipped: why some can't be.
    """

    trained: dict[Shot, Combination] = field(default_factory=dict)
    probed: list[Probing] = field(default_factory=list)
    skipped: dict[Shot, str] = field(default_factory=dict)

    @property
    def shots(self) -> set[Shot]:
        """Return all runs, possible or not."""
        return {*self.trained, *(shot for one in self.probed for shot in one.shots), *self.skipped}

    def probes(self, evaluation: EvaluationConfig) -> list[Combination]:
        """Return the probes as runs with their evaluation, for checks that are about either."""
        return [Combination(one.experiment, (), (), {}, [evaluation]) for one in self.probed]


@dataclass(frozen=True)
class Grid:
    """What a study is made of.

    Attributes:
        configs: files of the experiment.
        starts: by name; where a name has several, the draws take them in turn.
        labels: each learned by itself.
        shots: values of k.
        seeds: number of draws.
        evaluation: the test scans.
        folder: of the study.
        more: flags of `fmct evaluate`, beside `--no-tensorboard`.
        keeps_weights: whether trained runs keep their weights.
    """

    configs: Sequence[Path]
    starts: Mapping[str, Sequence[Start]]
    labels: Sequence[str]
    shots: Sequence[int]
    seeds: int
    evaluation: EvaluationConfig
    folder: Path
    more: Sequence[str] = ()
    keeps_weights: bool = False

    def plan(self) -> Plan:
        """Work out all runs.

        Raises:
            UsageError: when a start's experiment is wrong.
        """
        plan = Plan()
        for name, starts in self.starts.items():
            for turn, start in enumerate(starts):
                seeds = range(turn, self.seeds, len(starts))
                self._add(plan, start, f"{name}-{turn}" if len(starts) > 1 else name, seeds)
        return plan

    def _add(self, plan: Plan, start: Start, name: str, seeds: Sequence[int]) -> None:
        configs = start.configs(self.configs)
        common = [*QUICK, f"--trainer.runs={self.folder}"]
        common += start.flags(configs, common)
        experiment = load_experiment(configs, common)
        if not isinstance(experiment.task, ClassifierConfig):
            raise UsageError(
                f"{start.name} learns no labels (task {experiment.task.kind})",
                ", ".join(map(str, configs)),
                "give an experiment of a classifier",
            )
        plain = {"shots": None, "sampling": ShuffledSampling(), "soft_labels": False}
        pool = experiment.data.model_copy(update=plain).build((), 0).train.frame
        probing = Probing(name, experiment) if experiment.task.is_probe else None
        for label in self.labels:
            for k in self.shots:
                for seed in seeds:
                    shot = Shot(start.name, label, k, seed)
                    try:
                        ShotsConfig(label=label, k=k, seed=seed).choose(pool, experiment.data.manifest)
                    except UsageError as error:
                        plan.skipped[shot] = error.what
                        continue
                    if probing is None:
                        plan.trained[shot] = self._training(shot, configs, common, experiment.seed)
                    else:
                        probing.shots.append(shot)
        if probing is not None and probing.shots:
            plan.probed.append(probing)

    def _training(self, shot: Shot, configs: list[Path], common: list[str], seed: int) -> Combination:
        drawn = {"label": shot.label, "k": shot.k, "seed": shot.seed}
        flags = [
            *common,
            f"--name={shot.initialization}-{file_text(shot.label)}-k{shot.k}-seed{shot.seed}",
            f"--task.labels={json.dumps([shot.label])}",
            f"--data.shots={json.dumps(drawn)}",
            f"--seed={seed + shot.seed}",
        ]
        return Combination(
            load_experiment(configs, flags),
            configs,
            flags,
            shot._asdict(),
            [self.evaluation],
            [*self.more, "--no-tensorboard"],
            self.keeps_weights,
        )
