"""A run that trains nothing in steps: embed the scans once, fit a probe on the features, write an ordinary run folder.

Of the experiment, the optimizer, callbacks, crops, intensities and all of the trainer but `runs` and `accelerator` have
no part in it, and it says so: scans are embedded whole, in float32, as evaluation shows them to the weights.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fmct import __version__
from fmct.console.errors import UsageError
from fmct.console.progress import track
from fmct.data.datamodule import ScanDataModule
from fmct.data.dataset import ScanDataset
from fmct.data.feature_data import FeatureDataModule
from fmct.data.loader import scan_loader
from fmct.data.manifest import LABEL_PREFIX
from fmct.evaluation.probes import (
    Candidate,
    Labeled,
    Mode,
    Trial,
    best,
    by_cross_validation,
    fit_logistic,
    on_validation,
)
from fmct.evaluation.wording import count
from fmct.experiment.metrics_table import MetricsTable
from fmct.experiment.run_record import read_environment
from fmct.experiment.runs import FINISHED, PACKAGE, begin, write_environment
from fmct.experiment.schema import Experiment
from fmct.experiment.weights import initial_backbone, model_card
from fmct.models.backbones import BackboneConfig
from fmct.models.features import FeaturesConfig
from fmct.models.packaged import PackageConfig, PackagedModel, save_package
from fmct.models.pooling import Pooling
from fmct.models.probe_heads import KNNHead, KNNHeadConfig, LogisticHead, LogisticHeadConfig
from fmct.tasks.classifier import ClassifierConfig


@dataclass(frozen=True)
class Chosen:
    """What is fitted, and why.

    Attributes:
        candidate: of `ProbeConfig.candidates`.
        why: one sentence.
    """

    candidate: Candidate
    why: str


def fit_probe(experiment: Experiment, *, fresh: bool = False) -> Path:
    """Run an experiment of mode logreg or knn.

    Args:
        experiment: what to run.
        fresh: start over, even if the run is finished.

    Returns:
        The run's folder.

    Raises:
        UsageError: when manifest, cache, features, weights or an existing run don't fit the experiment, or a label has
            one class only.
    """
    task = experiment.task
    assert isinstance(task, ClassifierConfig)
    started = time.monotonic()
    L.seed_everything(experiment.seed, workers=True, verbose=False)
    data = experiment.data.build(experiment.labels, experiment.seed)
    require_both_classes(data)
    device = device_of(experiment)
    encoder = encoder_of(experiment, data)
    start = begin(experiment, fresh=fresh, first_process=True)
    if (start.folder / PACKAGE).exists() and read_environment(start.folder).get("finished"):
        say(FINISHED.format(folder=start.folder))
        return start.folder
    say(
        f"{experiment.name}: {task.mode} on {len(data.train)} scans"
        + (f", {len(data.val)} for validation" if data.val else "")
        + "; optimizer, callbacks, crops and intensity have no part in it"
    )
    if isinstance(data, FeatureDataModule) and data.left_out:
        say(f"{count(data.left_out, 'scan')} left out: the table doesn't have them")
    encoder = encoder.to(device)
    train = embedded(encoder, data.train, task.probe.pooling, experiment.data, device)
    val = embedded(encoder, data.val, task.probe.pooling, experiment.data, device) if data.val else None
    chosen = choose(experiment, train, val, start.folder)
    say(f"chosen: {written(chosen.candidate)}, {chosen.why}")
    model = with_head(encoder.cpu(), task, train, chosen.candidate)
    save_package(start.folder / "weights", model, model_card(model.config, data.train.frame))
    write_environment(
        start.folder,
        finished=True,
        steps=0,
        epochs=0,
        scans=len(data.train),
        left_out=getattr(data, "left_out", 0),
        seconds=round(time.monotonic() - started, 1),
        processes=1,
        probe=chosen.candidate | {"why": chosen.why},
    )
    say(f"done; weights in {start.folder / 'weights'}")
    return start.folder


def require_both_classes(data: ScanDataModule) -> None:
    """Check that every label can be learned.

    Raises:
        UsageError: when a label has only one class among the training scans.
    """
    targets = data.train.targets
    positive, negative = np.nansum(targets, 0, dtype=float), np.nansum(1 - targets, 0, dtype=float)
    for label, p, n in zip(data.labels, positive, negative, strict=True):
        if p == 0 or n == 0:
            raise UsageError(
                f"label {label} has {p:g} positive and {n:g} negative training scans: nothing to learn from",
                data.config.manifest,
                "leave the label out of task.labels or add scans to data.train_splits",
            )


def device_of(experiment: Experiment) -> torch.device:
    """Return where scans are embedded.

    Raises:
        UsageError: when the experiment wants a GPU and there is none.
    """
    wanted = experiment.trainer.accelerator
    if wanted == "gpu" and not torch.cuda.is_available():
        raise UsageError("this machine has no GPU", "trainer.accelerator", "set it to auto or cpu")
    return torch.device("cuda" if torch.cuda.is_available() and wanted != "cpu" else "cpu")


def encoder_of(experiment: Experiment, data: ScanDataModule) -> PackagedModel:
    """Make the frozen backbone with what it needs to read scans, or to take features.

    Raises:
        UsageError: as `initial_backbone`, or when the table's features aren't those that the backbone names.
    """
    backbone: nn.Module
    config: BackboneConfig
    if isinstance(data, FeatureDataModule):
        assert isinstance(experiment.backbone, FeaturesConfig)
        config, seen, settings = features_of(experiment.backbone, data), None, None
        backbone = config.build(0, 0)
    else:
        backbone = initial_backbone(experiment, data)
        config, seen, settings = experiment.backbone, experiment.input, data.cache.settings
    packaged = PackagedModel(
        PackageConfig(
            name=experiment.name,
            task="classifier",
            fmct_version=__version__,
            steps=0,
            backbone=config,
            input=seen,
            preprocessing=settings,
        )
    )
    packaged.backbone.load_state_dict(backbone.state_dict())
    return packaged


def features_of(config: FeaturesConfig, data: FeatureDataModule) -> FeaturesConfig:
    """Fill in the names of the table's features; where the configuration has them, take their order from there."""
    if config.columns is not None:
        data.reorder(config.columns)
    elif config.width not in {None, len(data.table.columns)}:
        raise UsageError(
            f"the table has {len(data.table.columns)} features, and backbone.width is {config.width}",
            data.table.where,
            "give the table that is meant, or leave backbone.width out",
        )
    return config.of(data.table.columns)


def embedded(
    encoder: PackagedModel, scans: ScanDataset, pooling: Pooling, config: Any, device: torch.device
) -> Labeled:
    """Embed scans, each once, and put their labels beside."""
    batches = track(scan_loader(scans, config.batch_size, config.workers), f"embed {len(scans)} scans, batches")
    with torch.inference_mode():
        parts = [encoder.pooled(batch["hu"].to(device), pooling).cpu().numpy() for batch in batches]
    truth: NDArray[np.float64] = np.stack(
        [scans.frame[LABEL_PREFIX + label].astype("float64").to_numpy() for label in scans.labels], 1
    )
    return Labeled(np.concatenate(parts), scans.targets, truth, scans.frame["patient_id"].to_numpy(object))


def choose(experiment: Experiment, train: Labeled, val: Labeled | None, folder: Path) -> Chosen:
    """Try the candidates, write RUN/metrics.csv, and choose the best one.

    Raises:
        UsageError: when there are several, and no label has both classes among the scans that they are scored on.
    """
    task = experiment.task
    assert isinstance(task, ClassifierConfig)
    mode, balanced = mode_of(task), task.balance == "pos_weight"
    candidates = task.probe.candidates(mode)
    if val is None and len(candidates) == 1:
        return Chosen(candidates[0], "the only candidate")
    prefix = "cv" if val is None else "val"
    table = MetricsTable(folder / "metrics.csv")
    trials: list[Trial] = []
    for number, candidate in enumerate(track(candidates, f"fit {mode}, candidates")):
        if val is None:
            trial = by_cross_validation(mode, candidate, train, task.probe.folds, experiment.seed, balanced)
        else:
            trial = on_validation(mode, candidate, train, val, balanced)
        trials.append(trial)
        named = {f"{prefix}/auroc_{label}": value for label, value in zip(task.labels, trial.aurocs, strict=True)}
        scalars = {f"probe/{key}": value for key, value in candidate.items()} | {f"{prefix}/auroc": trial.mean} | named
        table.log_metrics({key: value for key, value in scalars.items() if not np.isnan(value)}, number)
        say(f"  {written(candidate)}: AUROC " + ("n/a" if np.isnan(trial.mean) else f"{trial.mean:.3f}"))
    table.write()
    found = best(trials)
    if found is None and len(candidates) > 1:
        scored = "in cross-validation by patient" if val is None else "among the validation scans"
        raise UsageError(
            f"{len(candidates)} candidates, and no label has enough patients of both classes {scored} to choose by",
            experiment.data.manifest,
            "set data.val_splits to [] to choose by cross-validation, or give one candidate, as in "
            + ("--task.probe.c 0.1" if mode == "logreg" else "--task.probe.k 10 --task.probe.temperature 0.07"),
        )
    if found is None or len(candidates) == 1:
        return Chosen(candidates[0], "the only candidate")
    counted = [label for label, value in zip(task.labels, found.aurocs, strict=True) if not np.isnan(value)]
    scored = (
        f"in {task.probe.folds}-fold cross-validation by patient over the training scans"
        if val is None
        else f"on {len(val.patients)} validation scans of {count(len(set(val.patients)), 'patient')}"
    )
    return Chosen(found.candidate, f"the best mean AUROC ({found.mean:.3f}) over {', '.join(counted)} {scored}")


def with_head(encoder: PackagedModel, task: ClassifierConfig, train: Labeled, candidate: Candidate) -> PackagedModel:
    """Fit the chosen candidate on all training scans and return the encoder with it as its head."""
    mode, pooling = mode_of(task), task.probe.pooling
    head: LogisticHeadConfig | KNNHeadConfig
    if mode == "logreg":
        head = LogisticHeadConfig(pooling=pooling, c=candidate["c"])
    else:
        head = KNNHeadConfig(
            pooling=pooling, k=int(candidate["k"]), temperature=candidate["temperature"], scans=len(train.patients)
        )
    model = PackagedModel(encoder.config.model_copy(update={"head": head, "labels": task.labels}))
    model.backbone.load_state_dict(encoder.backbone.state_dict())
    if isinstance(model.head, LogisticHead):
        fitted = fit_logistic(train.features, train.targets, candidate["c"], task.balance == "pos_weight")
        if fitted.unconverged:
            named = ", ".join(task.labels[number] for number in fitted.unconverged)
            say(f"not converged for {named}: try smaller values of task.probe.c")
        model.head.set(fitted.mean, fitted.scale, fitted.weight, fitted.bias)
    elif isinstance(model.head, KNNHead):
        model.head.set(train.features, train.targets)
    return model


def mode_of(task: ClassifierConfig) -> Mode:
    """Return the mode of a classifier that is a probe."""
    assert task.mode in {"logreg", "knn"}
    return "logreg" if task.mode == "logreg" else "knn"


def written(candidate: Candidate) -> str:
    """Write a candidate: C 0.1, or k 20, temperature 0.07."""
    return ", ".join(f"{'C' if key == 'c' else key} {value:g}" for key, value in candidate.items())


def say(message: str) -> None:
    """Print a line."""
    print(message, flush=True)
