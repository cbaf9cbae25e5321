"""What the demo's runs reached: mean AUROC over findings, by start, number of labels and hospitals, against scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from fmct.demo.stages import STUDY, Plan
from fmct.evaluation.confidence import Bootstrap
from fmct.evaluation.few_shot import FewShot, Shot, summarize_shots
from fmct.evaluation.predictions import read_predictions
from fmct.evaluation.seed_means import SeedMean
from fmct.evaluation.studies import FEW_SHOT, read
from fmct.experiment.starting import SCRATCH

ALL = 0
"""Stands for k where all labels of the training scans are used."""


@dataclass(frozen=True)
class Outcome:
    """One start with so many labels at some hospitals.

    Attributes:
        start: its name; `scratch` is what others are compared with.
        k: patients of each class, or `ALL`.
        group: hospitals that were tested on, of `Plan.groups`.
        labels: findings that the mean is over.
        auroc: mean over findings and draws.
        difference: to scratch on the same scans and, with few shots, from the same patients.
    """

    start: str
    k: int
    group: str
    labels: tuple[str, ...]
    auroc: SeedMean
    difference: SeedMean

    @property
    def verdict(self) -> str:
        """Whether it is above or below scratch; empty where the interval holds zero, or there is none."""
        bounds = self.difference.ci
        if bounds is None or bounds[0] <= 0 <= bounds[1]:
            return ""
        return "above" if bounds[0] > 0 else "below"


def outcomes(plan: Plan) -> list[Outcome]:
    """Read all of a finished demo: the few-shot study, then the runs on all labels.

    Differences are computed from predictions of the same scans, with the same resampled patients.
    """
    found = []
    for group in plan.groups:
        study = read(plan.out / STUDY / group / FEW_SHOT, FewShot)
        found += outcomes_of(study, group)
    for group, sites in plan.groups.items():
        found += outcomes_of(on_all_labels(plan, sites), group)
    return found


def on_all_labels(plan: Plan, sites: Sequence[str]) -> FewShot:
    """Compare the runs on all labels, as a study of one draw."""
    predictions: dict[Shot, pd.DataFrame] = {}
    for one in plan.size.adaptation:
        folder = plan.run(one.name) / "evaluations"
        frame = pd.concat([read_predictions(folder / site / "predictions.parquet") for site in sites])
        for label, rows in frame.groupby("label", sort=False):
            predictions[Shot(one.name, str(label), ALL, 0)] = rows
    settings = Bootstrap.of(1000, 0, 0.95)
    return summarize_shots(list(predictions), predictions, {}, {}, settings, SCRATCH)[0]


def outcomes_of(study: FewShot, group: str) -> list[Outcome]:
    """Return the points of a study's curves, where there are any."""
    return [
        Outcome(one.initialization, one.k, group, study.mean.labels, one.auroc, one.auroc_difference)
        for one in study.mean.points
        if one.auroc.mean is not None
    ]
