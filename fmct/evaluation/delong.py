"""Tests and intervals for AUROCs without resampling: DeLong's variance, clustered by patient.

N scans, P positives, M negatives, I patients. The AUROC is a mean over pairs of a positive and a negative scan; its
variance follows from how every scan is placed among those of the other class (DeLong, DeLong and Clarke-Pearson 1988,
Biometrics 44:837). Placements come from midranks, in the time that sorting takes (Sun and Xu 2014, IEEE Signal
Processing Letters 21:1389). Scans of one patient are not independent: their placements are summed by patient before
they are squared, and a patient with scans of both classes adds a covariance (Obuchowski 1997, Biometrics 53:567). Where
every patient has one scan, that is DeLong's variance.

Simulated with equal models (3,000 cohorts each), p fell below 0.05 in 4.7 / 5.2 % with 5 / 10 positive patients of one
scan, in 6.5 % with 10 of three scans, in 4.9 to 6.0 % with 20 to 100 of two scans; counting those scans as independent,
in 11 to 18 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

from fmct.evaluation.metrics import Floats

PLAIN = "DeLong 1988, every patient has one scan"
CLUSTERED = "DeLong 1988 clustered by patient (Obuchowski 1997)"


@dataclass(frozen=True)
class Placements:
    """How the scans stand among those of the other class.

    Attributes:
        auroc: in [0, 1].
        of_scans: (N,) for a positive the share of negatives that score less, for a negative the share of positives
            that score more; ties count half. Its mean over either class is the AUROC.
    """

    auroc: float
    of_scans: Floats

    @classmethod
    def of(cls, target: ArrayLike, score: ArrayLike) -> Placements:
        """Place every scan.

        Args:
            target: (N,) 0 or 1, both present.
            score: (N,) finite, higher for more likely positive.
        """
        positive, scores = np.asarray(target, dtype=np.float64) == 1, np.asarray(score, dtype=np.float64)
        below = rankdata(scores)
        below[positive] -= rankdata(scores[positive])
        below[~positive] -= rankdata(scores[~positive])
        P, M = int(positive.sum()), int((~positive).sum())
        of_scans = np.where(positive, below / M, 1 - below / P)
        return cls(float(of_scans[positive].mean()), of_scans)


@dataclass(frozen=True)
class Influence:
    """How far each patient moves an AUROC, or a difference of two, from its value.

    Attributes:
        through_positives: (I,) sum over a patient's positive scans of placement minus mean, divided by P.
        through_negatives: (I,) the same for negatives and M.
        has_positive: (I,) bool.
        has_negative: (I,) bool.
    """

    through_positives: Floats
    through_negatives: Floats
    has_positive: NDArray[np.bool_]
    has_negative: NDArray[np.bool_]

    @classmethod
    def of(cls, placements: Floats, target: Floats, patients: NDArray[np.intp], n_patients: int) -> Influence:
        """Sum by patient.

        Args:
            placements: (N,) of one score, or the difference between two scores'.
            target: (N,) 0 or 1.
            patients: (N,) from 0 to n_patients - 1.
            n_patients: I.
        """
        positive = target == 1

        def summed(chosen: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.bool_]]:
            deviation = placements[chosen] - placements[chosen].mean()
            sums = np.bincount(patients[chosen], deviation, minlength=n_patients) / chosen.sum()
            return sums, np.bincount(patients[chosen], minlength=n_patients) > 0

        through_positives, has_positive = summed(positive)
        through_negatives, has_negative = summed(~positive)
        return cls(through_positives, through_negatives, has_positive, has_negative)

    @property
    def variance(self) -> float:
        """Variance of the AUROC or difference (Obuchowski 1997); NaN with one patient of a class."""
        either = self.has_positive | self.has_negative
        both_ways = float(self.through_positives @ self.through_negatives)
        return (
            spread(self.has_positive) * float(self.through_positives @ self.through_positives)
            + spread(self.has_negative) * float(self.through_negatives @ self.through_negatives)
            + 2 * (spread(either) * both_ways if both_ways else 0.0)
        )


def covariance(one: Influence, other: Influence) -> float:
    """Return the covariance of two AUROCs of separate scans, which comes from the patients with scans in both."""
    either = one.has_positive | one.has_negative | other.has_positive | other.has_negative
    of_one, of_other = (part.through_positives + part.through_negatives for part in (one, other))
    return spread(either) * float(of_one @ of_other)


def spread(patients: NDArray[np.bool_]) -> float:
    """Return K / (K - 1) of the K patients marked, which makes a sum of squares an unbiased variance."""
    number = int(patients.sum())
    return number / (number - 1) if number > 1 else float("nan")


@dataclass(frozen=True)
class PairedTest:
    """Whether two scores of the same scans have the same AUROC.

    Attributes:
        difference: AUROC of a minus that of b.
        se: its standard error, None where one class has a single patient.
        z: difference / se, None where the standard error is None or 0.
        p: two-sided, from the normal distribution; None where z is.
        ci: difference -/+ quantile * se; None where z is.
        method: `PLAIN` or `CLUSTERED`.
    """

    difference: float
    se: float | None
    z: float | None
    p: float | None
    ci: tuple[float, float] | None
    method: str


def paired_test(
    target: ArrayLike, a: ArrayLike, b: ArrayLike, patient: ArrayLike, confidence: float = 0.95
) -> PairedTest:
    """Test two AUROCs on the same scans for a difference, by DeLong's method clustered by patient.

    Args:
        target: (N,) 0 or 1, both present.
        a: (N,) finite scores of one model.
        b: (N,) finite scores of the other.
        patient: (N,) identifiers; where all are distinct this is DeLong's own test.
        confidence: of the interval.
    """
    targets = np.asarray(target, dtype=np.float64)
    patients, names = pd.factorize(np.asarray(patient))
    placed_a, placed_b = Placements.of(targets, a), Placements.of(targets, b)
    difference = placed_a.auroc - placed_b.auroc
    variance = Influence.of(placed_a.of_scans - placed_b.of_scans, targets, patients, len(names)).variance
    method = PLAIN if len(names) == len(targets) else CLUSTERED
    if np.isnan(variance):
        return PairedTest(difference, None, None, None, None, method)
    se = float(np.sqrt(max(variance, 0.0)))
    if se < 1e-12:
        return PairedTest(difference, 0.0, None, None, None, method)
    z, reach = difference / se, float(norm.isf((1 - confidence) / 2)) * se
    return PairedTest(difference, se, z, float(2 * norm.sf(abs(z))), (difference - reach, difference + reach), method)
