"""Which of a probe's candidates is taken: all are tried, written to RUN/metrics.csv, and the best one is said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmct.console.errors import UsageError
from fmct.console.progress import track
from fmct.evaluation.probes import Candidate, Labeled, Mode, Trial, best, by_cross_validation, on_validation
from fmct.evaluation.wording import count
from fmct.experiment.metrics_table import MetricsTable
from fmct.experiment.schema import Experiment
from fmct.tasks.classifier import ClassifierConfig


@dataclass(frozen=True)
class Chosen:
    """What is fitted.

    Attributes:
        candidate: of `ProbeConfig.candidates`.
        why: the reason, as the end of a sentence.
    """

    candidate: Candidate
    why: str


def choose(experiment: Experiment, train: Labeled, val: Labeled | None, folder: Path) -> Chosen:
    """Try the candidates on validation scans or, without any, by cross-validation, and take the best.

    Args:
        experiment: of mode logreg or knn.
        train: what the probe learns from.
        val: validation scans; no patient of theirs is among those of `train`.
        folder: the run's, for metrics.csv: a row per candidate, columns val/ or cv/.

    Raises:
        UsageError: when there are several, and no label has both classes among the scans that they are scored on.
    """
    task = experiment.task
    assert isinstance(task, ClassifierConfig)
    mode, balanced = mode_of(task), task.balance == "pos_weight"
    candidates = task.probe.candidates(mode, len(train.patients))
    if val is None and len(candidates) == 1:
        return Chosen(candidates[0], "the only candidate")
    prefix = "cv" if val is None else "val"
    table = MetricsTable(folder / "metrics.csv")
    trials: list[Trial] = []
    found = (
        on_validation(mode, candidates, train, val, balanced)
        if val
        else (by_cross_validation(mode, one, train, task.probe.folds, experiment.seed, balanced) for one in candidates)
    )
    for number, trial in enumerate(track(found, f"fit {mode}, candidates", len(candidates))):
        trials.append(trial)
        named = {f"{prefix}/auroc_{label}": value for label, value in zip(task.labels, trial.aurocs, strict=True)}
        scalars = (
            {f"probe/{key}": value for key, value in trial.candidate.items()} | {f"{prefix}/auroc": trial.mean} | named
        )
        table.log_metrics({key: value for key, value in scalars.items() if not np.isnan(value)}, number)
        print(
            f"  {written(trial.candidate)}: AUROC {'n/a' if np.isnan(trial.mean) else f'{trial.mean:.3f}'}", flush=True
        )
    table.write()
    winner = best(trials)
    if len(candidates) == 1:
        return Chosen(candidates[0], "the only candidate")
    if winner is None:
        scored = "in cross-validation by patient" if val is None else "among the validation scans"
        raise UsageError(
            f"{len(candidates)} candidates, and no label has enough patients of both classes {scored} to choose by",
            experiment.data.manifest,
            ("" if val is None else "set data.val_splits to [] to choose by cross-validation, or ")
            + "give one candidate: "
            + ("--task.probe.c 0.1" if mode == "logreg" else "--task.probe.k 10 --task.probe.temperature 0.07"),
        )
    counted = [label for label, value in zip(task.labels, winner.aurocs, strict=True) if not np.isnan(value)]
    scored = (
        f"in cross-validation by patient over the training scans, of at most {task.probe.folds} folds"
        if val is None
        else f"on {count(len(val.patients), 'validation scan')} of {count(len(set(val.patients)), 'patient')}"
    )
    return Chosen(winner.candidate, f"the best mean AUROC ({winner.mean:.3f}) over {', '.join(counted)} {scored}")


def mode_of(task: ClassifierConfig) -> Mode:
    """Return the mode of a classifier that is a probe."""
    assert task.mode in {"logreg", "knn"}
    return "logreg" if task.mode == "logreg" else "knn"


def written(candidate: Candidate) -> str:
    """Write a candidate: C 0.1, or k 20, temperature 0.07."""
    return ", ".join(f"{'C' if key == 'c' else key} {value:g}" for key, value in candidate.items())
