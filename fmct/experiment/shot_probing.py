"""Few-shot probes: scans are embedded once, and hundreds of draws are fitted on their features in seconds.

What `fmct fit` with mode logreg or knn and `data.shots`, then `fmct evaluate`, would say of each draw, to float32's
rounding. Of several candidates of the probe, cross-validation within a draw's own 2 k patients chooses; test patients
have no part in it. Random weights are drawn once, with the experiment's seed, for all draws.
N scans, D features, Q test scans.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmct.console.errors import UsageError
from fmct.console.files import atomic_path, sha256
from fmct.console.progress import track
from fmct.data.datamodule import ScanDataModule
from fmct.data.feature_table import MADE, FeatureTable, read_features
from fmct.data.manifest import LABEL_PREFIX, read_manifest
from fmct.data.sampling import ShuffledSampling
from fmct.data.shots import ShotsConfig
from fmct.evaluation.few_shot import Shot
from fmct.evaluation.predictions import check_predictions
from fmct.evaluation.probes import Candidate, Labeled, best, by_cross_validation, scores
from fmct.evaluation.whitening import fit_whitening
from fmct.experiment.combination import EvaluationConfig
from fmct.experiment.frozen import device_of, embedded, encoder_of
from fmct.experiment.loading import as_record, digest
from fmct.experiment.probe_choice import mode_of
from fmct.experiment.schema import Experiment
from fmct.experiment.shot_plan import Probing
from fmct.models.packaged import SUMS, package_folder
from fmct.tasks.classifier import ClassifierConfig

BESIDE = ("split", "site")


def probed(probing: Probing, evaluation: EvaluationConfig, folder: Path) -> Iterator[tuple[Shot, pd.DataFrame]]:
    """Fit all draws of one frozen backbone and say what each makes of the test scans.

    Args:
        probing: the backbone and its draws.
        evaluation: the test scans.
        folder: of the study; features are kept in FOLDER/features, and made once.

    Yields:
        A draw, and a row per test scan: scan_id, patient_id, label, target, probability, split, site, and `candidate`,
        the C or k that was taken.

    Raises:
        UsageError: when weights, cache or test scans don't fit, or no candidate can be chosen.
    """
    experiment = probing.experiment
    plain = {"shots": None, "sampling": ShuffledSampling(), "soft_labels": False}
    data = experiment.data.model_copy(update=plain).build((), experiment.seed)
    pool, test = data.train.frame, data.scans_of(tested_rows(evaluation)).frame
    whiten = classifier_of(experiment).probe.whiten
    unlabeled = data.in_splits(whiten.splits) if whiten else pool
    both = pd.concat([pool, test, unlabeled]).drop_duplicates("scan_id")
    table = features_of(experiment, data, both, folder / "features" / f"{probing.name}.parquet")
    if whiten:
        whitening = fit_whitening(values_of(table, unlabeled), whiten.components)
        white = whitening(table.values).astype(np.float32)
        table = replace(table, columns=tuple(f"w{number:04d}" for number in range(white.shape[1])), values=white)
    asked = values_of(table, test)
    for shot in track(probing.shots, f"probes of {probing.name}"):
        rows = ShotsConfig(label=shot.label, k=shot.k, seed=shot.seed).choose(pool, experiment.data.manifest)
        train = labeled(table, rows, shot.label)
        candidate = candidate_of(experiment, train, shot)
        task = classifier_of(experiment)
        (said,) = scores(mode_of(task), [candidate], train, asked, task.balance == "pos_weight")
        known = {
            "scan_id": test["scan_id"],
            "patient_id": test["patient_id"],
            "label": shot.label,
            "target": test[LABEL_PREFIX + shot.label].astype("float64"),
            "probability": said[:, 0].astype(np.float64),
            "candidate": next(iter(candidate.values())),
        }
        frame = pd.DataFrame(known | {name: test[name] for name in BESIDE})
        yield shot, check_predictions(frame, f"the probe {shot}")


def tested_rows(evaluation: EvaluationConfig) -> pd.DataFrame:
    """Return the manifest's rows that are tested on.

    Raises:
        UsageError: when there are none.
    """
    frame = read_manifest(evaluation.data)
    splits = [name.strip() for name in evaluation.split.split(",")]
    chosen = frame if evaluation.split == "all" else frame[frame["split"].isin(splits)]
    chosen = chosen[chosen["site"].isin(evaluation.sites)] if evaluation.sites else chosen
    if chosen.empty:
        where = f"split {evaluation.split}" + (f", sites {', '.join(evaluation.sites)}" if evaluation.sites else "")
        raise UsageError(f"no scan to test on ({where})", evaluation.data, "change --split or --sites")
    return chosen


def features_of(experiment: Experiment, data: ScanDataModule, rows: pd.DataFrame, path: Path) -> FeatureTable:
    """Read the features of some scans, or make and keep them where they aren't there yet, or are of other weights."""
    task = classifier_of(experiment)
    seen = {"backbone": as_record(experiment)["backbone"], "input": as_record(experiment)["input"]}
    made = {
        "weights": sha256(package_folder(task.weights) / SUMS) if task.weights else f"random, seed {experiment.seed}",
        "pooling": task.probe.pooling,
        "of": digest(
            seen | {"cache": str(experiment.data.cache), "tables": list(map(str, experiment.data.features or ()))}
        ),
    }
    if path.exists():
        table = read_features([path])
        if table.made == made and set(rows["scan_id"]) <= table.row_of.keys():
            return table
    device = device_of(experiment)
    encoder = encoder_of(experiment, data).to(device)
    found = embedded(encoder, data.scans_of(rows), task.probe.pooling, experiment.data, device).features
    columns = tuple(f"e{number:04d}" for number in range(found.shape[1]))
    frame = pd.DataFrame(found.astype(np.float32), columns=list(columns))
    frame.insert(0, "scan_id", rows["scan_id"].to_numpy())
    frame.attrs = {MADE: made}
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)
    return FeatureTable((path,), columns, tuple(rows["scan_id"]), found.astype(np.float32), made)


def values_of(table: FeatureTable, rows: pd.DataFrame) -> NDArray[np.float32]:
    """Return (N, D) features of the rows."""
    found: NDArray[np.float32] = table.values[[table.row_of[scan_id] for scan_id in rows["scan_id"]]]
    return found


def labeled(table: FeatureTable, rows: pd.DataFrame, label: str) -> Labeled:
    """Return the features of a draw beside one label."""
    truth = rows[LABEL_PREFIX + label].astype("float64").to_numpy()[:, None]
    return Labeled(values_of(table, rows), truth, truth, rows["patient_id"].to_numpy(object))


def candidate_of(experiment: Experiment, train: Labeled, shot: Shot) -> Candidate:
    """Return the candidate that is fitted: the only one, or the best in cross-validation within the draw."""
    task = classifier_of(experiment)
    mode, balanced = mode_of(task), task.balance == "pos_weight"
    candidates = task.probe.candidates(mode, len(train.patients))
    if len(candidates) == 1:
        return candidates[0]
    seed = experiment.seed + shot.seed
    trials = [by_cross_validation(mode, one, train, task.probe.folds, seed, balanced) for one in candidates]
    winner = best(trials)
    if winner is None:
        raise UsageError(
            f"k = {shot.k} leaves no patients to choose among {len(candidates)} candidates of the probe",
            f"{shot.initialization}, {shot.label}",
            "give one candidate, as in --c 0.01 or --task.probe.c 0.01, or larger --shots",
        )
    return winner.candidate


def classifier_of(experiment: Experiment) -> ClassifierConfig:
    """Return the experiment's task."""
    assert isinstance(experiment.task, ClassifierConfig)
    return experiment.task
