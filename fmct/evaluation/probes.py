"""Probes that are fitted, not trained in steps: logistic regression and nearest neighbors on frozen features.

What strength of the penalty, or how many neighbors, is chosen by the mean AUROC over the labels, on validation patients
or, where there are none, by cross-validation over training patients. Test scans have no part in it.
N training scans, D features, L labels, Q scans asked about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from sklearn.model_selection import StratifiedGroupKFold

from fmct.evaluation.knn import nearest, weighted_share
from fmct.evaluation.logistic import fit_logistic
from fmct.evaluation.metrics import auroc
from fmct.evaluation.whitening import Whitening, WhiteningConfig
from fmct.experiment.config import Config
from fmct.models.pooling_kinds import POOLING, Pooling

Mode = Literal["logreg", "knn"]
Floats = NDArray[np.floating]
Candidate = dict[str, float]


class ProbeConfig(Config):
    """What a scan's features are, and what is tried on them."""

    pooling: Pooling = Field("cls", description=POOLING)
    c: tuple[PositiveFloat, ...] = Field(
        (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), min_length=1, description="logreg: inverse strengths of the L2 penalty"
    )
    whiten: WhiteningConfig | None = Field(
        None, description="logreg: fit on principal components over scans without labels; null: on the features"
    )
    k: tuple[PositiveInt, ...] = Field((5, 10, 20, 50), min_length=1, description="knn: numbers of neighbors")
    temperature: tuple[PositiveFloat, ...] = Field(
        (0.03, 0.07, 0.2), min_length=1, description="knn: how fast the weight of neighbors falls with their distance"
    )
    folds: int = Field(5, ge=2, description="of the cross-validation by patient, where there is no validation split")

    def candidates(self, mode: Mode, scans: int) -> list[Candidate]:
        """List what is tried, the smoothest first: all values of C, or all pairs of k and temperature.

        Args:
            mode: of the probe.
            scans: training scans: there are no more neighbors than these.
        """
        if mode == "logreg":
            return [{"c": c} for c in sorted(self.c)]
        pairs = product(sorted({min(k, scans) for k in self.k}, reverse=True), sorted(self.temperature, reverse=True))
        return [{"k": k, "temperature": temperature} for k, temperature in pairs]


@dataclass(frozen=True)
class Labeled:
    """Scans with features and labels.

    Attributes:
        features: (N, D).
        targets: (N, L) what is learned: 0 to 1, NaN where unknown.
        truth: (N, L) what scores are held against: 0, 1, NaN where unknown. Other than `targets` with soft labels only.
        patients: (N,) whose scans they are.
    """

    features: Floats
    targets: Floats
    truth: Floats
    patients: NDArray[Any]

    def take(self, rows: NDArray[Any]) -> Labeled:
        """Return some of the scans."""
        return Labeled(self.features[rows], self.targets[rows], self.truth[rows], self.patients[rows])

    def whitened(self, whitening: Whitening) -> Labeled:
        """Return the same scans with whitened features."""
        return Labeled(whitening(self.features), self.targets, self.truth, self.patients)


def scores(
    mode: Mode, candidates: Sequence[Candidate], train: Labeled, features_QD: Floats, balanced: bool
) -> Iterator[Floats]:
    """Yield for each candidate what a probe fitted on some scans says of others: (Q, L) in [0, 1]."""
    if mode == "logreg":
        for candidate in candidates:
            yield fit_logistic(train.features, train.targets, candidate["c"], balanced).probabilities(features_QD)
        return
    furthest = int(max(candidate["k"] for candidate in candidates))
    neighbors: dict[bytes, tuple[Floats, NDArray[np.int64]]] = {}  # labels that are known of the same scans share them
    for target in train.targets.T:
        known = ~np.isnan(target)
        if known.tobytes() not in neighbors:
            neighbors[known.tobytes()] = nearest(train.features[known], features_QD, furthest)
    for candidate in candidates:
        k, columns = int(candidate["k"]), []
        for target in train.targets.T:
            known = ~np.isnan(target)
            closeness, rows = neighbors[known.tobytes()]
            columns.append(weighted_share(closeness[:, :k], rows[:, :k], target[known], candidate["temperature"]))
        yield np.stack(columns, 1)


@dataclass(frozen=True)
class Trial:
    """What one candidate reached.

    Attributes:
        candidate: what was tried.
        aurocs: one per label, NaN where it has none.
    """

    candidate: Candidate
    aurocs: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the labels that have an AUROC; NaN where none has."""
        defined = [value for value in self.aurocs if not np.isnan(value)]
        return float(np.mean(defined)) if defined else float("nan")


def on_validation(
    mode: Mode, candidates: Sequence[Candidate], train: Labeled, val: Labeled, balanced: bool
) -> Iterator[Trial]:
    """Fit each candidate on the training scans and score it on the validation scans."""
    for candidate, said in zip(candidates, scores(mode, candidates, train, val.features, balanced), strict=True):
        columns = zip(val.truth.T, said.T, strict=True)
        yield Trial(candidate, tuple(known_auroc(truth, column) for truth, column in columns))


def by_cross_validation(
    mode: Mode, candidate: Candidate, train: Labeled, folds: int, seed: int, balanced: bool
) -> Trial:
    """Score a candidate on training scans held out: per label, the mean AUROC of folds that share no patient."""
    aurocs = []
    for label in range(train.targets.shape[1]):
        one = Labeled(train.features, train.targets[:, [label]], train.truth[:, [label]], train.patients)
        values = []
        for learn, ask in split_by_patient(one, folds, seed):
            (said,) = scores(mode, [candidate], one.take(learn), one.features[ask], balanced)
            values.append(known_auroc(one.truth[ask, 0], said[:, 0]))
        defined = [value for value in values if not np.isnan(value)]
        aurocs.append(float(np.mean(defined)) if defined else float("nan"))
    return Trial(candidate, tuple(aurocs))


def split_by_patient(one: Labeled, folds: int, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield rows to learn from and rows to ask about, for scans with one label, whose classes all folds share alike.

    There are fewer folds where a class has fewer patients, and none where it has only one.
    """
    known = np.flatnonzero(~np.isnan(one.truth[:, 0]))
    truth, patients = one.truth[known, 0].astype(int), one.patients[known]
    fewest = min(len(set(patients[truth == value])) for value in (0, 1))
    folds = min(folds, fewest)
    if folds < 2:
        return
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for learn, ask in splitter.split(known, truth, patients):
        if len(set(truth[learn])) == 2:
            yield known[learn], known[ask]


def known_auroc(truth: Floats, score: Floats) -> float:
    """AUROC of the scans whose label is known; NaN when they lack a class."""
    known = ~np.isnan(truth)
    value = auroc(truth[known], score[known])
    return float("nan") if value is None else value


def best(trials: list[Trial]) -> Trial | None:
    """Return the trial with the greatest mean AUROC, of several the first, the smoothest; None where none has one."""
    defined = [trial for trial in trials if not np.isnan(trial.mean)]
    return max(defined, key=lambda trial: trial.mean) if defined else None
