"""How well embeddings tell site and scanner: what a classifier could lean on instead of the disease.

N scans, D features, C classes, R replicates. Where findings are more common at one site, a model that knows the site
knows something about the finding that fails elsewhere (Zech et al. 2018, PLoS Medicine 15:e1002683). Every scan is
predicted by a model that was fitted without its patient. Balanced accuracy is the mean over classes of the share
predicted rightly, 1 / C by chance; AUROC is the mean over classes of one against the others, 0.5 by chance. Both are
lower bounds of what the features hold: another classifier may find more. Intervals resample patients; they don't cover
how fits would vary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmct.evaluation.confidence import FEW_PATIENTS, Bootstrap, patient_weights
from fmct.evaluation.grouping import UNKNOWN, groups_by
from fmct.evaluation.knn import knn_scores
from fmct.evaluation.metrics import Floats, Ranking, divided
from fmct.experiment.config import Config

FACTORS = ("site", "manufacturer", "model")
NEIGHBORS = 20
Method = Literal["logistic regression", "nearest neighbors"]
Labels = NDArray[np.intp]


class Shortcut(Config):
    """How well one method tells one factor; what is undefined is None and `reason` says why."""

    factor: str
    method: Method
    classes: dict[str, int]
    left_out: dict[str, int]
    n_scans: int
    n_patients: int
    balanced_accuracy: float | None = None
    balanced_accuracy_ci: tuple[float, float] | None = None
    balanced_accuracy_chance: float | None = None
    auroc: float | None = None
    auroc_ci: tuple[float, float] | None = None
    status: Literal["ok", "n/a"]
    reason: str

    @property
    def verdict(self) -> str:
        """Say whether the interval of the balanced accuracy lies above chance."""
        if self.balanced_accuracy_ci is None or self.balanced_accuracy_chance is None:
            return "n/a"
        return "told apart" if self.balanced_accuracy_ci[0] > self.balanced_accuracy_chance else "not shown"


class Shortcuts(Config):
    """The outcome for all factors and methods."""

    n_features: int
    folds: int
    neighbors: int
    settings: Bootstrap
    results: tuple[Shortcut, ...]


def find_shortcuts(
    scans: pd.DataFrame, features_ND: Floats, factors: Sequence[str], settings: Bootstrap, folds: int = 5
) -> Shortcuts:
    """Predict each factor from the features, by logistic regression and by nearest neighbors.

    Args:
        scans: N rows of a manifest.
        features_ND: (N, D) finite.
        factors: columns, or groupings such as scanner and slice_mm. Unknown values are left out, as are classes of
            fewer than 10 patients.
        settings: of the bootstrap; its seed also divides the patients.
        folds: parts that the patients are divided into.
    """
    results: list[Shortcut] = []
    for factor in factors:
        groups = groups_by(scans, factor)
        values = pd.Series(UNKNOWN, index=scans.index, dtype=object) if groups is None else groups
        results += factor_shortcuts(scans, features_ND, values.to_numpy(object), factor, settings, folds)
    width = int(features_ND.shape[1])
    return Shortcuts(n_features=width, folds=folds, neighbors=NEIGHBORS, settings=settings, results=tuple(results))


def factor_shortcuts(
    scans: pd.DataFrame,
    features_ND: Floats,
    groups: NDArray[np.object_],
    factor: str,
    settings: Bootstrap,
    folds: int,
) -> list[Shortcut]:
    """Predict one factor by both methods."""
    known = groups != UNKNOWN
    table = pd.DataFrame({"group": groups[known], "patient": scans["patient_id"].to_numpy(object)[known]})
    patients = table.groupby("group")["patient"].nunique()
    sizes = {str(name): int(number) for name, number in table["group"].value_counts().items()}
    kept = [name for name in sizes if patients[name] >= FEW_PATIENTS]
    rows = np.flatnonzero(np.isin(groups, kept))
    facts = {
        "factor": factor,
        "classes": {name: sizes[name] for name in kept},
        "left_out": {name: size for name, size in sizes.items() if name not in kept},
        "n_scans": len(rows),
        "n_patients": int(scans["patient_id"].iloc[rows].nunique()),
    }
    methods: dict[Method, Callable[..., Floats]] = {
        "logistic regression": logistic_scores,
        "nearest neighbors": neighbor_scores,
    }
    if len(kept) < 2:
        only = "no value" if not kept else f"only {kept[0]}"
        reason = f"{only} with {FEW_PATIENTS} patients or more, of {len(sizes)} known"
        return [Shortcut(**facts, method=method, status="n/a", reason=reason) for method in methods]
    classes = np.array([kept.index(name) for name in groups[rows]])
    patient = scans["patient_id"].to_numpy(object)[rows]
    found = []
    for method, scorer in methods.items():
        scores = out_of_fold(features_ND[rows], classes, patient, scorer, folds, settings.seed)
        figures = judged(scores, classes, patient, settings)
        found.append(Shortcut(**facts, method=method, **figures, status="ok", reason=""))
    return found


def out_of_fold(
    features_ND: Floats,
    classes: Labels,
    patient: NDArray[np.object_],
    scorer: Callable[[Floats, Labels, Floats], Floats],
    folds: int,
    seed: int,
) -> Floats:
    """Score every scan by a model fitted on other patients: (N, C), rows adding up to 1."""
    from sklearn.model_selection import StratifiedGroupKFold

    scores = np.zeros((len(classes), int(classes.max()) + 1))
    division = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fitted, asked in division.split(features_ND, classes, patient):
        scores[asked] = scorer(features_ND[fitted], classes[fitted], features_ND[asked])
    return scores


def logistic_scores(bank_BD: Floats, classes_B: Labels, query_QD: Floats) -> Floats:
    """Return (Q, C) probabilities under classes of equal weight, from standardized features, L2 penalty with C = 1."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fit = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, class_weight="balanced", max_iter=2000))
    scores: Floats = fit.fit(bank_BD, classes_B).predict_proba(query_QD)
    return scores


def neighbor_scores(bank_BD: Floats, classes_B: Labels, query_QD: Floats) -> Floats:
    """Return (Q, C) shares among the nearest neighbors by cosine, each against how common the class is."""
    members = classes_B[:, None] == np.arange(int(classes_B.max()) + 1)
    center = bank_BD.mean(axis=0)  # features share a large common part, which would make all cosines alike
    shares = [knn_scores(bank_BD - center, one.astype(np.float64), query_QD - center, NEIGHBORS) for one in members.T]
    enriched = np.stack(shares, axis=1) / members.mean(axis=0)
    scores: Floats = enriched / enriched.sum(axis=1, keepdims=True)
    return scores


def judged(
    scores: Floats, classes: Labels, patient: NDArray[np.object_], settings: Bootstrap
) -> dict[str, float | tuple[float, float]]:
    """Return balanced accuracy and AUROC with intervals.

    Args:
        scores: (N, C).
        classes: (N,) the true ones, from 0 to C - 1.
        patient: (N,).
        settings: of the bootstrap.
    """
    C = scores.shape[1]
    members = (classes[:, None] == np.arange(C)).T.astype(np.float64)
    right = members * (scores.argmax(axis=1) == classes)
    rankings = [Ranking.of(member, column) for member, column in zip(members, scores.T, strict=True)]

    def measured(weights: Floats) -> Floats:
        accuracy = divided(right @ weights, members @ weights).mean(axis=0)
        return np.stack([accuracy, np.mean([ranking.auroc(weights) for ranking in rankings], axis=0)])

    accuracy, auroc = measured(np.ones((len(classes), 1)))[:, 0]
    draws = patient_weights(patient, np.zeros(len(classes)), settings.replicates, settings.seed)
    replicates = np.concatenate([measured(weights) for weights in draws], axis=1)
    beyond = (1 - settings.confidence) / 2
    low, high = np.nanquantile(replicates, [beyond, 1 - beyond], axis=1)
    return {
        "balanced_accuracy": float(accuracy),
        "balanced_accuracy_ci": (float(low[0]), float(high[0])),
        "balanced_accuracy_chance": 1 / C,
        "auroc": float(auroc),
        "auroc_ci": (float(low[1]), float(high[1])),
    }
