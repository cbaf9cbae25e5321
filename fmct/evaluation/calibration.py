"""Whether probabilities mean what they say: Brier score, calibration error, reliability curve, recalibration line.

N scans, R replicates, B bins, K terms. Every figure here is a function of sums over scans, so that all replicates of a
bootstrap cost one matrix product: `Calibration.terms` (K, N) times weights (N, R).

* Brier score: mean of (probability - target)^2; its skill is 1 - Brier / Brier of predicting the prevalence.
* Calibration error in bins of equal numbers of scans: see `fmct.evaluation.calibration_error`.
* Intercept and slope of logit(share of positives) = intercept + slope * logit(probability) (Cox 1958; Van Calster et
  al. 2019, BMC Medicine 17:230): a slope below 1 means too extreme; an intercept above 0, the slope held at 1, too low.
  In a replicate they move by one Newton step (Moulton and Zeger 1991) instead of being fitted anew.

Simulated (100 to 1,000 patients with two like scans, calibrated and not, 300 cohorts each), 95 % intervals covered the
truth in 93 to 96 % (Brier score, intercept), 92 to 97 % (skill, slope), 97 to 100 % (RMS calibration error).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit

from fmct.evaluation.calibration_error import calibration_error, equal_mass_bins, mean_square_error, root
from fmct.evaluation.confidence import Bootstrap, PatientCounts, joint_note, percentile_interval
from fmct.evaluation.metrics import Floats, divided
from fmct.experiment.config import Config

CLIP = 1e-6
"""Probabilities nearer to 0 or 1 count as this near in the recalibration line, whose logits would be infinite."""


class ReliabilityPoint(Config):
    """One bin of the reliability curve."""

    n_scans: int
    predicted: float
    observed: float
    observed_ci: tuple[float, float] | None


class CalibrationMetrics(Config):
    """How far the probabilities of one label can be taken at their word; what is undefined is None."""

    brier: float
    brier_ci: tuple[float, float] | None
    brier_skill: float
    brier_skill_ci: tuple[float, float] | None
    ece: float
    ece_debiased: float | None
    rmsce: float | None
    rmsce_ci: tuple[float, float] | None
    n_bins: int
    intercept: float
    intercept_ci: tuple[float, float] | None
    slope: float | None
    slope_ci: tuple[float, float] | None
    curve: tuple[ReliabilityPoint, ...]
    note: str


@dataclass(frozen=True)
class Calibration:
    """One label's probabilities, ready to be weighted in many ways.

    Attributes:
        terms: (K, N) what is summed over scans: 1, target, squared error; target, probability and 1 in each bin;
            gradient and curvature of the recalibration with slope 1; the same of that with a free slope.
        bins: number of bins.
        intercept: with the slope held at 1.
        line: intercept and slope fitted together; None where they are infinite or every probability is the same.
    """

    terms: Floats
    bins: int
    intercept: float
    line: Floats | None

    @classmethod
    def of(cls, target: Floats, probability: Floats) -> Calibration:
        """Prepare the terms of (N,) targets, of both classes, and (N,) probabilities in [0, 1]."""
        bin_of = equal_mass_bins(probability)
        bins = int(bin_of.max()) + 1
        inside = bin_of == np.arange(bins)[:, None]
        x = logit(np.clip(probability, CLIP, 1 - CLIP))
        intercept = brentq(lambda a: float((target - expit(a + x)).sum()), -50, 50, xtol=1e-12)
        line = recalibration_line(target, x)
        shifted, fitted = expit(intercept + x), expit(x if line is None else line[0] + line[1] * x)
        spread = fitted * (1 - fitted)
        rows = [
            np.stack([np.ones_like(target), target, (probability - target) ** 2]),
            *(inside * one for one in (target, probability, np.ones_like(target))),
            np.stack([target - shifted, shifted * (1 - shifted)]),
            np.stack([target - fitted, (target - fitted) * x, spread, spread * x, spread * x * x]),
        ]
        return cls(np.concatenate(rows), bins, float(intercept), line)

    def brier(self, sums: Floats) -> Floats:
        """Return the Brier score and its skill, (2, R), of (K, R) weighted sums."""
        total, positive, squared = sums[:3]
        prevalence = positive / total
        score = squared / total
        return np.stack([score, 1 - divided(score, prevalence * (1 - prevalence))])

    def curve(self, sums: Floats) -> Floats:
        """Return share of positives, mean probability and weight of each bin, (3, B, R); NaN for an empty bin."""
        observed, predicted, weight = sums[3 : 3 + 3 * self.bins].reshape(3, self.bins, -1)
        return np.stack([divided(observed, weight), divided(predicted, weight), weight])

    def gaps(self, sums: Floats) -> Floats:
        """Return what each bin adds to the calibration error, with its sign: (B, R)."""
        observed, predicted, _ = sums[3 : 3 + 3 * self.bins].reshape(3, self.bins, -1)
        gaps: Floats = (observed - predicted) / sums[0]
        return gaps

    def recalibration(self, sums: Floats) -> Floats:
        """Return the intercept at slope 1 and the free slope, (2, R), each by one Newton step from the whole sample."""
        at_slope_1, curvature, g0, g1, h00, h01, h11 = sums[3 + 3 * self.bins :]
        intercept = self.intercept + divided(at_slope_1, curvature)
        if self.line is None:
            return np.stack([intercept, np.full_like(intercept, np.nan)])
        return np.stack([intercept, self.line[1] + divided(h00 * g1 - h01 * g0, h00 * h11 - h01 * h01)])


def recalibration_line(target: Floats, x: Floats) -> Floats | None:
    """Fit logit P(target) = a + b x by maximum likelihood; (a, b), or None where the classes don't overlap in x."""
    positive, negative = x[target == 1], x[target == 0]
    if positive.min() >= negative.max() or negative.min() >= positive.max():
        return None
    design = np.stack([np.ones_like(x), x])

    def loss(line: Floats) -> float:
        return float(np.logaddexp(0, line @ design).sum() - target @ (line @ design))

    def gradient(line: Floats) -> Floats:
        return design @ (expit(line @ design) - target)

    def curvature(line: Floats) -> Floats:
        fitted = expit(line @ design)
        return (design * (fitted * (1 - fitted))) @ design.T

    start = np.array([0.0, 1.0])
    found = minimize(loss, start, jac=gradient, hess=curvature, method="trust-exact", options={"gtol": 1e-8 * len(x)})
    return np.asarray(found.x, dtype=np.float64)


def calibration_metrics(
    prepared: Calibration, sums: Floats, patients: PatientCounts, settings: Bootstrap
) -> CalibrationMetrics:
    """Put the figures and their intervals together.

    Args:
        prepared: the label's terms.
        sums: (K, R) terms times the weights of every replicate.
        patients: how many patients stand behind each class.
        settings: of the bootstrap.
    """
    once = prepared.terms.sum(axis=1, keepdims=True)
    brier, skill = prepared.brier(once)[:, 0]
    intercept, slope = prepared.recalibration(once)[:, 0]
    gaps, drawn = prepared.gaps(once), prepared.gaps(sums)
    noise, (observed, predicted, weight) = drawn.std(axis=1), prepared.curve(once)[:, :, 0]
    shares = weight / weight.sum()
    error, debiased = calibration_error(gaps[:, 0], noise)
    values = dict(zip(("brier", "brier_skill"), prepared.brier(sums), strict=True))
    values |= dict(zip(("intercept", "slope"), prepared.recalibration(sums), strict=True))
    values |= {"rmsce": mean_square_error(drawn, noise, shares, 2)}
    if prepared.line is None:
        del values["slope"]
    intervals = {name: percentile_interval(one, patients, settings.confidence) for name, one in values.items()}
    notes = {name: interval.note for name, interval in intervals.items()}
    if prepared.line is None:
        notes["slope"] = "not defined: the probabilities of the classes don't overlap, or are all the same"
    squares = intervals["rmsce"].bounds
    points = tuple(
        ReliabilityPoint(
            n_scans=round(n),
            predicted=mean,
            observed=share,
            observed_ci=percentile_interval(one, patients, settings.confidence).bounds,
        )
        for n, mean, share, one in zip(weight, predicted, observed, prepared.curve(sums)[0], strict=True)
    )
    return CalibrationMetrics(
        brier=brier,
        brier_ci=intervals["brier"].bounds,
        brier_skill=skill,
        brier_skill_ci=intervals["brier_skill"].bounds,
        ece=error,
        ece_debiased=debiased if squares else None,
        rmsce=root(mean_square_error(gaps, noise, shares, 1)[0]) if squares else None,
        rmsce_ci=(root(squares[0]), root(squares[1])) if squares else None,
        n_bins=prepared.bins,
        intercept=intercept,
        intercept_ci=intervals["intercept"].bounds,
        slope=None if prepared.line is None else slope,
        slope_ci=intervals["slope"].bounds if prepared.line is not None else None,
        curve=points,
        note=joint_note(notes),
    )
