"""A run that trains nothing in steps: embed the scans once, fit a probe on the features, write an ordinary run folder.

Of the experiment, the optimizer, callbacks, crops, intensities and all of the trainer but `runs` and `accelerator` have
no part in it, and it says so: scans are embedded whole, in float32, as evaluation shows them to the weights.
"""

from __future__ import annotations

import time
from pathlib import Path

import lightning as L
import numpy as np
import torch

from fmct.console.errors import UsageError
from fmct.console.occupied import occupied
from fmct.data.datamodule import ScanDataModule
from fmct.data.feature_data import FeatureDataModule
from fmct.evaluation.logistic import fit_logistic
from fmct.evaluation.probes import Candidate, Labeled, ProbeConfig
from fmct.evaluation.whitening import Whitening, fit_whitening
from fmct.evaluation.wording import count
from fmct.experiment.frozen import device_of, embedded, encoder_of
from fmct.experiment.probe_choice import choose, mode_of, written
from fmct.experiment.provenance import inputs_of, record_part
from fmct.experiment.runs import begin, finished_already, is_finished, run_folder, write_environment
from fmct.experiment.schema import Experiment
from fmct.models.packaged import PackagedModel, save_package
from fmct.models.probe_heads import KNNHead, KNNHeadConfig, LogisticHead, LogisticHeadConfig
from fmct.release.card import model_card
from fmct.release.training_facts import TrainingFacts
from fmct.tasks.classifier import ClassifierConfig


def fit_probe(experiment: Experiment, *, fresh: bool = False) -> Path:
    """Run an experiment of mode logreg or knn.

    Args:
        experiment: what to run.
        fresh: start over, even if the run is finished.

    Returns:
        The run's folder.

    Raises:
        UsageError: when manifest, cache, features, weights or an existing run don't fit the experiment, a label has
            one class only, or another process is at work in the run's folder.
    """
    L.seed_everything(experiment.seed, workers=True, verbose=False)
    data = experiment.data.build(experiment.labels, experiment.seed)
    require_both_classes(data)
    device = device_of(experiment)
    encoder = encoder_of(experiment, data)
    with occupied(run_folder(experiment)):
        return fit_prepared(experiment, data, encoder, device, fresh=fresh)


def fit_prepared(
    experiment: Experiment, data: ScanDataModule, encoder: PackagedModel, device: torch.device, *, fresh: bool
) -> Path:
    """Fit a probe on the features of an encoder, alone in the run's folder."""
    task = experiment.task
    assert isinstance(task, ClassifierConfig)
    started = time.monotonic()
    start = begin(experiment, fresh=fresh, first_process=True)
    if is_finished(start.folder):
        say(finished_already(start.folder))
        return start.folder
    say(
        f"{experiment.name}: {task.mode} on {count(len(data.train), 'scan')}"
        + (f", {len(data.val)} for validation" if data.val else "")
        + "; optimizer, callbacks, crops and intensity have no part in it"
    )
    record_part(start.folder, **inputs_of(experiment, data))
    left_out = data.left_out if isinstance(data, FeatureDataModule) else 0
    if left_out:
        say(f"{count(left_out, 'scan')} left out: the table doesn't have them")
    encoder = encoder.to(device)
    train = embedded(encoder, data.train, task.probe.pooling, experiment.data, device)
    val = embedded(encoder, data.val, task.probe.pooling, experiment.data, device) if data.val else None
    whitening = None
    if task.probe.whiten is not None:
        whitening = whitening_of(encoder, data, train, task.probe, device)
        train, val = train.whitened(whitening), val and val.whitened(whitening)
    chosen = choose(experiment, train, val, start.folder)
    say(f"chosen: {written(chosen.candidate)}, {chosen.why}")
    model = with_head(encoder.cpu(), task, train, chosen.candidate, whitening)
    save_package(start.folder / "weights", model, model_card(model.config, TrainingFacts.of(experiment, data)))
    write_environment(
        start.folder,
        finished=True,
        steps=0,
        epochs=0,
        scans=len(data.train),
        left_out=left_out,
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


def whitening_of(
    encoder: PackagedModel, data: ScanDataModule, train: Labeled, probe: ProbeConfig, device: torch.device
) -> Whitening:
    """Fit the whitening on all scans of its splits; those that were embedded for training aren't again."""
    assert probe.whiten is not None
    rows = data.in_splits(probe.whiten.splits)
    done = np.isin(data.train.scan_ids, rows["scan_id"])
    parts = [train.features[done]]
    others = rows[~rows["scan_id"].isin(data.train.scan_ids)]
    if len(others):
        parts.append(embedded(encoder, data.scans_of(others), probe.pooling, data.config, device).features)
    whitening = fit_whitening(np.concatenate(parts), probe.whiten.components)
    say(f"whitened by {len(rows)} scans without labels: {count(whitening.components.shape[1], 'component')}")
    return whitening


def with_head(
    encoder: PackagedModel, task: ClassifierConfig, train: Labeled, candidate: Candidate, whitening: Whitening | None
) -> PackagedModel:
    """Fit the chosen candidate on all training scans and return the encoder with it as its head."""
    pooling = task.probe.pooling
    head: LogisticHeadConfig | KNNHeadConfig
    if mode_of(task) == "logreg":
        head = LogisticHeadConfig(pooling=pooling, c=candidate["c"])
    else:
        k, temperature = int(candidate["k"]), candidate["temperature"]
        head = KNNHeadConfig(pooling=pooling, k=k, temperature=temperature, scans=len(train.patients))
    model = PackagedModel(encoder.config.model_copy(update={"head": head, "labels": task.labels}))
    model.backbone.load_state_dict(encoder.backbone.state_dict())
    if isinstance(model.head, LogisticHead):
        fitted = fit_logistic(train.features, train.targets, candidate["c"], task.balance == "pos_weight")
        if fitted.unconverged:
            named = ", ".join(task.labels[number] for number in fitted.unconverged)
            say(f"not converged for {named}: try smaller values of task.probe.c")
        fitted = fitted.of_whitened(whitening) if whitening else fitted
        model.head.set(fitted.mean, fitted.scale, fitted.weight, fitted.bias)
    elif isinstance(model.head, KNNHead):
        model.head.set(train.features, train.targets)
    return model


def say(message: str) -> None:
    """Print a line."""
    print(message, flush=True)
