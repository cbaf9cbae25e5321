"""The transfer matrix: trained on one site, tested on every site; on its own site, on patients held out there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from fmct import __version__
from fmct.evaluation.confidence import Bootstrap
from fmct.evaluation.predictions import read_predictions
from fmct.evaluation.run_scores import LabelScores, side_by_side
from fmct.evaluation.seed_means import COVERS, NOTHING, SeedMean, bootstrapped, mean_over_labels, scarcest, seed_mean
from fmct.evaluation.summary import METRICS
from fmct.experiment.config import Config

if TYPE_CHECKING:
    from fmct.experiment.combination import Combination

SEED = "seed"


class TransferCell(Config):
    """Trained here, tested there, one label: the mean over the runs that differ in their seed only."""

    train_site: str
    test_site: str
    own_site: bool
    label: str
    others: dict[str, Any]
    auroc: float | None
    ci: tuple[float, float] | None
    ap: float | None
    ap_ci: tuple[float, float] | None
    auroc_over_seeds: SeedMean
    ap_over_seeds: SeedMean
    n: int
    n_patients: int
    n_positive: int
    reason: str


class TransferMean(Config):
    """Trained here, tested there: the mean over the labels that have both classes at every test site."""

    train_site: str
    test_site: str
    own_site: bool
    others: dict[str, Any]
    labels: tuple[str, ...]
    auroc: SeedMean
    ap: SeedMean


class Transfer(Config):
    """The contents of transfer.json; `others` are the values of the grid besides the training site and the seed."""

    key: str
    cells: tuple[TransferCell, ...]
    mean: tuple[TransferMean, ...]
    covers: str = COVERS
    settings: Bootstrap
    fmct: str = __version__


def transfer_of(combinations: Sequence[Combination], key: str, settings: Bootstrap) -> Transfer:
    """Compute the matrix from the predictions of finished runs.

    Args:
        combinations: runs, all evaluated alike; those that aren't done are left out.
        key: the key of the grid whose values are the training sites.
        settings: of the bootstrap.
    """
    groups: dict[str, list[Combination]] = {}
    for one in combinations:
        if one.is_done:
            parts = {name: value for name, value in one.values.items() if name != SEED}
            groups.setdefault(json.dumps(parts, sort_keys=True), []).append(one)
    tables = {
        (group, evaluation.name): tables_of(runs, number)
        for group, runs in groups.items()
        for number, evaluation in enumerate(runs[0].evaluations)
    }
    defined = [{table.label for table in found if not table.reason} for found in tables.values()]
    common = set.intersection(*defined) if defined else set()
    cells: list[TransferCell] = []
    means: list[TransferMean] = []
    for (group, test_site), found in tables.items():
        values = groups[group][0].values
        train_site = str(values[key])
        others = {name: value for name, value in values.items() if name not in {key, SEED}}
        place: dict[str, Any] = {
            "train_site": train_site,
            "test_site": test_site,
            "own_site": train_site == test_site,
            "others": others,
        }
        cells += [cell_of(table, place, settings) for table in found]
        shared = [table for table in found if table.label in common]
        if shared:
            auroc, ap = mean_of(shared, settings)
            labels = tuple(table.label for table in shared)
            means.append(TransferMean(**place, labels=labels, auroc=auroc, ap=ap))
    return Transfer(key=key, cells=tuple(cells), mean=tuple(means), settings=settings)


def tables_of(runs: Sequence[Combination], number: int) -> list[LabelScores]:
    """Read what runs said in one of their evaluations, label by label."""
    frames: dict[Any, pd.DataFrame] = {
        run.name: read_predictions(run.evaluations[number].folder(run.folder) / "predictions.parquet") for run in runs
    }
    labels = dict.fromkeys(label for frame in frames.values() for label in frame["label"])
    return [side_by_side(label, frames) for label in labels]


def cell_of(table: LabelScores, place: dict[str, Any], settings: Bootstrap) -> TransferCell:
    """Compute one label's cell."""
    means = [NOTHING, NOTHING]
    if not table.reason:
        values, replicates = bootstrapped(table, settings, METRICS)
        means = [seed_mean(values[row], replicates[row], table.patients, settings) for row in range(len(METRICS))]
    counts = table.counts()
    return TransferCell(
        **place,
        label=table.label,
        auroc=means[0].mean,
        ci=means[0].ci,
        ap=means[1].mean,
        ap_ci=means[1].ci,
        auroc_over_seeds=means[0],
        ap_over_seeds=means[1],
        n=counts["n_scans"],
        n_patients=counts["n_patients"],
        n_positive=counts["n_positive"],
        reason=table.reason,
    )


def mean_of(tables: Sequence[LabelScores], settings: Bootstrap) -> list[SeedMean]:
    """Average over labels; the scarcest of them decides whether there is an interval."""
    values, replicates = mean_over_labels(tables, [table.runs for table in tables], settings, METRICS)
    patients = scarcest(tables)
    return [seed_mean(values[row], replicates[row], patients, settings) for row in range(len(METRICS))]
