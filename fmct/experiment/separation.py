"""Whether patients whose labels a run learns are among those that it is evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from fmct.console.errors import UsageError
from fmct.data.manifest import read_manifest
from fmct.experiment.combination import Combination
from fmct.experiment.schema import Experiment
from fmct.tasks.classifier import ClassifierConfig


def check_apart(combinations: Sequence[Combination]) -> None:
    """Check every run against every evaluation of it, before anything is run.

    Raises:
        UsageError: naming manifests and how many patients they share.
    """
    checked = set()
    patients = lru_cache(maxsize=None)(patients_of)  # a manifest is read once per call, not once per process
    for one in combinations:
        data = one.experiment.data
        trained_on = (data.manifest, splits_seen(one.experiment), data.sites or ())
        for evaluation in one.evaluations:
            splits = () if evaluation.split == "all" else (evaluation.split,)
            tested_on = (evaluation.data, splits, evaluation.sites)
            if (trained_on, tested_on) in checked:
                continue
            checked.add((trained_on, tested_on))
            shared = patients(*trained_on) & patients(*tested_on)
            if shared:
                raise UsageError(
                    f"{len(shared)} of the patients of evaluation {evaluation.name} are among those trained on "
                    f"({data.manifest}, split {', '.join(trained_on[1])})",
                    evaluation.data,
                    "take them out of one of the two; patients of different archives need different patient_ids",
                )


def splits_seen(experiment: Experiment) -> tuple[str, ...]:
    """Return the splits that a run sees: those it trains on, and those that whiten its features."""
    task = experiment.task
    whiten = task.probe.whiten if isinstance(task, ClassifierConfig) else None
    return tuple(dict.fromkeys([*experiment.data.train_splits, *(whiten.splits if whiten else ())]))


def patients_of(manifest: Path, splits: tuple[str, ...], sites: tuple[str, ...]) -> frozenset[str]:
    """Return the patients in some splits and of some sites of a manifest; none given: of all."""
    frame = read_manifest(manifest)
    frame = frame[frame["split"].isin(splits)] if splits else frame
    frame = frame[frame["site"].isin(sites)] if sites else frame
    return frozenset(frame["patient_id"])
