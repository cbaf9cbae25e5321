"""Results by site, scanner, slice thickness, age, sex and kernel, with intervals, and their distance from the rest.

AUROC only: it doesn't depend on how common a finding is in a group. The intervals are DeLong's, clustered by patient
and symmetric in log odds, so that they stay within 0 and 1. The difference between a group and all other scans has an
interval of its own: two intervals that overlap may differ all the same, and patients with scans in both tie them
together. Simulated (true AUROC 0.76 everywhere, two scans per patient, 1,500 cohorts), 95 % intervals of a group with
5 / 10 / 20 / 40 patients who have the finding covered the truth in 92 / 94 / 96 / 96 %, those of differences in 87 / 92
/ 94 / 94 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm

from fmct.evaluation.confidence import FEW_PATIENTS, FEWEST_PATIENTS, PatientCounts
from fmct.evaluation.delong import Influence, Placements, covariance
from fmct.evaluation.grouping import UNKNOWN, groups_by, natural
from fmct.evaluation.metrics import Floats
from fmct.experiment.config import Config

METHOD = "DeLong clustered by patient (Obuchowski 1997), in log odds; differences: the same, in AUROC"


class Subgroup(Config):
    """One label in one group; what is undefined is None and `reason` says why."""

    by: str
    group: str
    label: str
    n_scans: int
    n_patients: int
    n_positive: int
    n_positive_patients: int
    auroc: float | None
    auroc_ci: tuple[float, float] | None
    difference: float | None
    difference_ci: tuple[float, float] | None
    status: Literal["ok", "n/a"]
    reason: str
    note: str


class Subgroups(Config):
    """All groups of all labels. `difference` is the group's AUROC minus that of all other scans of known group."""

    method: str
    by: tuple[str, ...]
    rows: tuple[Subgroup, ...]


def subgroups(predictions: pd.DataFrame, by: Sequence[str], confidence: float) -> Subgroups:
    """Compute the AUROC of every label in every group.

    Args:
        predictions: checked; one row per scan and label.
        by: site, scanner, slice_mm, age, or any column; one that is absent or makes a single group is left out.
        confidence: of the intervals.
    """
    rows: list[Subgroup] = []
    used = []
    for name in by:
        groups = groups_by(predictions, name)
        if groups is None or groups.nunique() < 2:
            continue
        used.append(name)
        for label, of_label in predictions.groupby("label", sort=False):
            rows += label_subgroups(of_label, groups[of_label.index], name, str(label), confidence)
    return Subgroups(method=METHOD, by=tuple(used), rows=tuple(rows))


def label_subgroups(
    rows: pd.DataFrame, groups: pd.Series[str], by: str, label: str, confidence: float
) -> list[Subgroup]:
    """Compute one label's groups under one division, from one row per scan."""
    known = rows["target"].notna()
    rows, group = rows[known], groups[known].to_numpy(object)
    target, score = rows["target"].to_numpy(np.float64), rows["probability"].to_numpy(np.float64)
    patient = rows["patient_id"].to_numpy(object)
    patients, _ = pd.factorize(patient)
    found = []
    for name in sorted(set(group), key=lambda one: (one == UNKNOWN, natural(one))):
        inside = group == name
        rest = ~inside & (group != UNKNOWN)
        counts = PatientCounts.of(patient[inside], target[inside])
        reason = too_few(counts)
        values: dict[str, object] = dict.fromkeys(("auroc", "auroc_ci", "difference", "difference_ci"))
        if not reason:
            one = PartAUROC.of(inside, target, score, patients)
            values["auroc"], values["auroc_ci"] = one.value, one.interval(confidence)
            if not too_few(PatientCounts.of(patient[rest], target[rest])):
                other = PartAUROC.of(rest, target, score, patients)
                values["difference"] = one.value - other.value
                values["difference_ci"] = one.difference_interval(other, confidence)
        found.append(
            Subgroup(
                by=by,
                group=str(name),
                label=label,
                n_scans=int(inside.sum()),
                n_patients=counts.total,
                n_positive=int(target[inside].sum()),
                n_positive_patients=counts.with_positive,
                status="n/a" if reason else "ok",
                reason=reason,
                note="" if reason or counts.fewest >= FEW_PATIENTS else few_note(counts),
                **values,
            )
        )
    return found


def too_few(counts: PatientCounts) -> str:
    """Say why a group allows no AUROC worth stating; empty when it does."""
    if counts.fewest >= FEWEST_PATIENTS:
        return ""
    return f"only {counts.fewest} patients with {counts.scarce_class} scans; {FEWEST_PATIENTS} are needed"


def few_note(counts: PatientCounts) -> str:
    """Say that an interval rests on few patients."""
    return f"only {counts.fewest} patients with {counts.scarce_class} scans: interval likely too narrow"


class PartAUROC:
    """The AUROC of some of the scans, with how far each patient of all moves it."""

    def __init__(self, value: float, influence: Influence) -> None:
        self.value = value
        self.influence = influence

    @classmethod
    def of(cls, inside: NDArray[np.bool_], target: Floats, score: Floats, patients: NDArray[np.intp]) -> PartAUROC:
        """Compute it for the scans marked; patients are numbered over all scans."""
        placed = Placements.of(target[inside], score[inside])
        influence = Influence.of(placed.of_scans, target[inside], patients[inside], int(patients.max()) + 1)
        return cls(placed.auroc, influence)

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Return the interval, symmetric in log odds; None at 0 or 1, where the spread is unknown."""
        variance = self.influence.variance
        if not 0 < self.value < 1 or not variance > 0:
            return None
        reach = float(norm.isf((1 - confidence) / 2)) * np.sqrt(variance) / (self.value * (1 - self.value))
        low, high = expit(logit(self.value) + np.array([-reach, reach]))
        return float(low), float(high)

    def difference_interval(self, other: PartAUROC, confidence: float) -> tuple[float, float] | None:
        """Return the interval of the difference from another part, which may share patients but no scans."""
        together = self.influence.variance + other.influence.variance
        variance = together - 2 * covariance(self.influence, other.influence)
        if not variance > 0:
            return None
        difference, reach = self.value - other.value, float(norm.isf((1 - confidence) / 2)) * np.sqrt(variance)
        return float(difference - reach), float(difference + reach)
