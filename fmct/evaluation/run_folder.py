"""A run's folder as a report reads it: configuration, environment, training table, pictures, evaluations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from fmct.console.errors import UsageError
from fmct.evaluation.metrics import unweighted
from fmct.evaluation.predictions import AGAIN, read_predictions
from fmct.evaluation.summary import METRICS, Metrics, read_metrics, summarize
from fmct.experiment.run_record import read_environment, read_experiment

STEP_IN_NAME = re.compile(r"(?P<subject>.+)_step(?P<step>\d+)\.png")
PRETEXT_NAMES = {"mae": "MAE", "dino": "DINO"}


@dataclass(frozen=True)
class Evaluation:
    """What one run said about one data set; predictions may be gone when only metrics.json was kept."""

    predictions: pd.DataFrame | None
    metrics: Metrics


@dataclass(frozen=True)
class Run:
    """A run folder; everything but the configuration may be absent.

    Attributes:
        folder: the run's folder.
        experiment: experiment.yaml.
        environment: environment.json, or empty.
        training: metrics.csv, one row per logged step, or None.
        pictures: the last picture of every subject, such as {"reconstruction": Path}.
        checksums: weights/SHA256SUMS, or an empty string.
        evaluations: by data set.
    """

    folder: Path
    experiment: dict[str, Any]
    environment: dict[str, Any]
    training: pd.DataFrame | None
    pictures: dict[str, Path]
    checksums: str
    evaluations: dict[str, Evaluation]

    @cached_property
    def name(self) -> str:
        """The experiment's name, or the folder's."""
        return str(self.experiment.get("name") or self.folder.resolve().name)

    @property
    def task(self) -> dict[str, Any]:
        """The task section of the configuration."""
        task = self.experiment.get("task")
        return task if isinstance(task, dict) else {}

    @property
    def kind(self) -> str:
        """Return mae, dino, classifier, or whatever pretext task there is."""
        return str(self.task.get("kind", "unknown"))

    @property
    def is_classifier(self) -> bool:
        """Whether this run learned labels."""
        return self.kind == "classifier"

    @property
    def is_frozen(self) -> bool:
        """Whether the classifier left its backbone as it was."""
        return self.task.get("mode") in {"linear", "attentive", "knn", "logreg"}

    @property
    def weights(self) -> str | None:
        """Where the classifier's backbone came from; None for random weights."""
        weights = self.task.get("weights")
        return str(weights) if weights else None

    @property
    def is_baseline(self) -> bool:
        """Whether pretrained runs are measured against this one: a classifier that began with random weights."""
        return self.is_classifier and self.weights is None and not self.features

    @property
    def features(self) -> list[str]:
        """Tables of features made elsewhere that the classifier was fitted on; none for one that saw scans."""
        return [str(table) for table in self.data.get("features") or ()]

    @property
    def data(self) -> dict[str, Any]:
        """The data section of the configuration."""
        data = self.experiment.get("data")
        return data if isinstance(data, dict) else {}


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        UsageError: when the folder is no run, a file in it is damaged, or metrics.json doesn't belong to the
            predictions beside it.
    """
    experiment = read_experiment(folder)
    evaluated = sorted(path for path in folder.glob("evaluations/*") if path.is_dir())
    evaluations = {path.name: read_evaluation(path) for path in evaluated}
    checksums = folder / "weights" / "SHA256SUMS"
    return Run(
        folder=folder,
        experiment=experiment,
        environment=read_environment(folder),
        training=read_training(folder / "metrics.csv"),
        pictures=last_pictures(folder / "pictures"),
        checksums=checksums.read_text(encoding="utf-8") if checksums.is_file() else "",
        evaluations={name: evaluation for name, evaluation in evaluations.items() if evaluation},
    )


def read_training(path: Path) -> pd.DataFrame | None:
    """Read metrics.csv, sorted by step; None where there is none or it has no rows."""
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path)
    except (ValueError, pd.errors.EmptyDataError) as error:
        raise UsageError(f"metrics.csv can't be read ({error})", path, "restore or delete it") from error
    if "step" not in table:
        raise UsageError("metrics.csv has no column step", path, "restore or delete it")
    return table.sort_values("step", kind="stable") if len(table) else None


def last_pictures(folder: Path) -> dict[str, Path]:
    """Return for every subject (`reconstruction_step000100.png`) the picture of the last step."""
    found = [(match, path) for path in folder.glob("*.png") if (match := STEP_IN_NAME.fullmatch(path.name))]
    found.sort(key=lambda pair: int(pair[0]["step"]))
    return {match["subject"]: path for match, path in found}


def read_evaluation(folder: Path) -> Evaluation | None:
    """Read RUN/evaluations/NAME; None for an empty folder.

    Raises:
        UsageError: when a file breaks its schema, or metrics.json was made from other predictions.
    """
    tables, summary = folder / "predictions.parquet", folder / "metrics.json"
    predictions = read_predictions(tables) if tables.is_file() else None
    if summary.is_file():
        metrics = read_metrics(summary)
        if predictions is not None:
            refuse_stale_metrics(metrics, predictions, summary)
        return Evaluation(predictions, metrics)
    if predictions is None:
        return None
    return Evaluation(predictions, Metrics.model_validate(summarize(predictions)))


def refuse_stale_metrics(metrics: Metrics, predictions: pd.DataFrame, path: Path) -> None:
    """Raise a UsageError when the point estimates in metrics.json don't follow from the predictions."""
    rows_of = dict(tuple(predictions.groupby("label")))
    fits = set(rows_of) == set(metrics.labels)
    for label, stated in metrics.labels.items() if fits else ():
        known = rows_of[label][rows_of[label]["target"].notna()]
        for metric in METRICS:
            value, said = unweighted(metric, known["target"], known["probability"]), getattr(stated, metric)
            fits &= (value is None) == (said is None) and abs((value or 0.0) - (said or 0.0)) < 1e-6
        fits &= stated.n_scans == len(known)
    if not fits:
        raise UsageError("metrics.json doesn't follow from predictions.parquet beside it", path, AGAIN)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read several runs, refusing one given twice."""
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise UsageError("the run is given twice", folder, "name every run once")
        seen.add(folder.resolve())
    return [read_run(folder) for folder in folders]
