"""Means over runs that differ in their seed only, with intervals that cover both patients and seeds.

A mean over S runs is uncertain for two reasons: other patients might have been in the test set, and other seeds might
have drawn other training patients, weights and batches. The first is the patient bootstrap of the mean over the runs
(every replicate takes the same patients for all of them, so what they share isn't averaged away). The second, given the
test set, has the standard error s / sqrt(S), s being the standard deviation over the runs. Since the variance of the
mean is the sum of the two (law of total variance, conditioning on the test patients), each replicate is moved by s /
sqrt(S) times a draw of Student's t with S - 1 degrees of freedom: with no spread over seeds the interval is the
bootstrap's, with endless patients it is the t interval of the mean. One seed says nothing about others: the interval
then covers the test patients alone, and a note says so.

N scans, S seeds, R replicates.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from pydantic import Field

from fmct.evaluation.confidence import Bootstrap, PatientCounts, patient_weights, percentile_interval
from fmct.evaluation.metrics import Floats, Metric, Ranking
from fmct.evaluation.run_scores import LabelScores
from fmct.experiment.config import Config

COVERS = (
    "ci covers both who was tested (patients resampled once per replicate for all runs) and the variation over seeds, "
    "which draw training patients, weights and batches (Student's t over the runs); ci_patients covers the former alone"
)
ONE_SEED = "one seed: the interval covers the test patients only"


class SeedMean(Config):
    """A metric, or a difference of two, averaged over seeds."""

    mean: float | None = Field(description="over the seeds")
    ci: tuple[float, float] | None = Field(None, description="covers test patients and seeds")
    ci_patients: tuple[float, float] | None = Field(None, description="covers test patients only")
    seed_sd: float | None = Field(None, description="standard deviation over the seeds; null with one")
    n_seeds: int = Field(0, description="how many seeds there are")
    note: str = Field("", description="what to beware of in the intervals, or why there is none")


NOTHING = SeedMean(mean=None)


def seed_mean(
    values: Floats, replicates: Floats, patients: PatientCounts, settings: Bootstrap, lowest: float = 0.0
) -> SeedMean:
    """Average over seeds.

    Args:
        values: (S,) a metric of each run on the test scans.
        replicates: (S, R) the same of each bootstrap replicate, NaN where a class was missing.
        patients: how many patients stand behind each class.
        settings: of the bootstrap.
        lowest: least possible value: 0, or -1 for differences; the greatest is 1.
    """
    seeds = len(values)
    over_seeds = replicates.mean(axis=0)
    inner = percentile_interval(over_seeds, patients, settings.confidence)
    if seeds == 1:
        note = "; ".join(filter(None, (inner.note, ONE_SEED)))
        return SeedMean(mean=float(values[0]), ci=inner.bounds, ci_patients=inner.bounds, n_seeds=1, note=note)
    spread = float(values.std(ddof=1))
    moves = np.random.default_rng([settings.seed, seeds]).standard_t(seeds - 1, size=over_seeds.shape)
    moved = np.clip(over_seeds + moves * spread / np.sqrt(seeds), lowest, 1.0)
    outer = percentile_interval(moved, patients, settings.confidence)
    return SeedMean(
        mean=float(values.mean()),
        ci=outer.bounds,
        ci_patients=inner.bounds,
        seed_sd=spread,
        n_seeds=seeds,
        note=outer.note,
    )


def values_and_replicates(
    target: Floats, scores: Floats, weights: Floats, metrics: tuple[Metric, ...]
) -> tuple[Floats, Floats]:
    """Compute metrics of several runs on the same scans and the same replicates.

    Args:
        target: (N,) 0 or 1, both of them.
        scores: (N, S) one column per run.
        weights: (N, R) how often each replicate holds each scan.
        metrics: M names.

    Returns:
        (M, S) values and (M, S, R) values of the replicates.
    """
    once = np.ones((len(target), 1))
    rankings = [Ranking.of(target, column) for column in scores.T]
    values = np.array([[ranking.value(metric, once)[0] for ranking in rankings] for metric in metrics])
    replicates = np.array([[ranking.value(metric, weights) for ranking in rankings] for metric in metrics])
    return values, replicates


def bootstrapped(table: LabelScores, settings: Bootstrap, metrics: tuple[Metric, ...]) -> tuple[Floats, Floats]:
    """Compute metrics of all runs with replicates of one label's patients, stratified as `fmct evaluate` does.

    Args:
        table: scores of S runs, with both classes.
        settings: of the bootstrap.
        metrics: M names.

    Returns:
        (M, S) values and (M, S, R) values of the replicates.
    """
    blocks = patient_weights(table.patient, table.target, settings.replicates, settings.seed)
    parts = [values_and_replicates(table.target, table.scores, weights, metrics) for weights in blocks]
    return parts[0][0], np.concatenate([replicates for _, replicates in parts], axis=2)


def mean_over_labels(
    tables: Sequence[LabelScores], runs: Sequence[Sequence[Hashable]], settings: Bootstrap, metrics: tuple[Metric, ...]
) -> tuple[Floats, Floats]:
    """Average metrics over labels, run by run and replicate by replicate.

    A replicate draws patients once for all labels, for a patient carries all of them; so it can't be stratified by
    each, and one in which a label lacks a class is NaN.

    Args:
        tables: of each label, with both classes.
        runs: of each label, the S runs that enter the mean, in the order in which they belong together.
        settings: of the bootstrap.
        metrics: M names.

    Returns:
        (M, S) values and (M, S, R) values of the replicates.
    """
    owner = {scan: patient for table in tables for scan, patient in zip(table.scan, table.patient, strict=True)}
    scans = np.array(sorted(owner), dtype=object)
    patient = np.array([owner[scan] for scan in scans], dtype=object)
    parts = [
        (np.searchsorted(scans, table.scan), table.target, table.of(mine))
        for table, mine in zip(tables, runs, strict=True)
    ]
    together = []
    for weights in patient_weights(patient, np.zeros(len(patient)), settings.replicates, settings.seed):
        each = [values_and_replicates(target, scores, weights[rows], metrics) for rows, target, scores in parts]
        together.append((np.mean([v for v, _ in each], axis=0), np.mean([r for _, r in each], axis=0)))
    return together[0][0], np.concatenate([replicates for _, replicates in together], axis=2)


def scarcest(tables: Sequence[LabelScores]) -> PatientCounts:
    """Return the counts of the label with the fewest patients of a class: it decides whether a mean has an interval."""
    return min((table.patients for table in tables), key=lambda patients: patients.fewest)
