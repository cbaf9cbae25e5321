"""The gate before a release: faces removed, splits disjoint, evaluated on patients that the weights never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from fmct.console.errors import UsageError
from fmct.data.disjointness import splits_of
from fmct.data.manifest import read_manifest
from fmct.data.manifest_checks import PLURALS, LeakError, shared_between_splits
from fmct.evaluation.run_folder import Evaluation
from fmct.evaluation.wording import count
from fmct.release.lineage import Ancestor

HOLDS_SCANS = "the weights hold features and labels of every training scan: the head compares with them"


def problems_of(run: Ancestor, evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Say what stands against handing weights to others, in sentences that name no patient, file or folder.

    Args:
        run: the lineage of the weights.
        evaluations: of the run, by name.

    Returns:
        Sentences; none, where nothing was found. Identifiers are compared, not volumes: `fmct split --check --cache`
        looks for near-duplicates.
    """
    found = [HOLDS_SCANS] if run.experiment and getattr(run.experiment.task, "mode", None) == "knn" else []
    found += [problem for ancestor in run.all if (problem := face_problem(ancestor))]
    found += split_problems(run.all)
    trained = [ancestor.data.train.frame for ancestor in run.all if ancestor.data]
    found += [
        problem for name, one in evaluations.items() if (problem := evaluation_problem(name, one.predictions, trained))
    ]
    return found


def face_problem(ancestor: Ancestor) -> str:
    """Say whether what was learned from may show faces; empty where it doesn't."""
    facts = ancestor.facts
    if facts is None:
        return f"what {ancestor.name} learned from isn't known here: neither faces nor splits can be checked"
    if facts.defaced is None:
        return f"whether the scans behind the features of {ancestor.name} were defaced isn't known here"
    return "" if facts.defaced else f"the cache that {ancestor.name} learned from wasn't defaced"


def split_problems(ancestors: Sequence[Ancestor]) -> list[str]:
    """Say what is in two splits, among the manifests of all runs."""
    frames: dict[str, pd.DataFrame] = {}
    for ancestor in ancestors:
        if ancestor.experiment is None:
            continue
        manifest = ancestor.experiment.data.manifest
        try:
            frames[str(manifest.resolve())] = read_manifest(manifest)
        except LeakError:  # its message names a patient
            return [f"the manifest of {ancestor.name} has a patient, study, series or scan in two splits"]
        except UsageError:
            return [f"the manifest of {ancestor.name} can't be read any more: splits can't be checked"]
    if not frames:
        return []
    shared = shared_between_splits(*splits_of(list(frames.values()))[0])
    return [
        f"{rows['id'].nunique()} {PLURALS[str(kind)]} are in two splits, among the manifests of the runs"
        for kind, rows in shared.groupby("kind", sort=False)
    ]


def evaluation_problem(name: str, predictions: pd.DataFrame | None, trained: Sequence[pd.DataFrame]) -> str:
    """Say whether an evaluation is about patients that the weights learned from; empty where it isn't."""
    if predictions is None:
        return f"the predictions of the evaluation {name} weren't kept: whom it is about can't be checked"
    patients = set(predictions["patient_id"])
    known: set[str] = set().union(*(set(frame["patient_id"]) for frame in trained))
    seen = len(patients & known)
    if not seen:
        return ""
    return f"{seen} of the {count(len(patients), 'patient')} in the evaluation {name} are among those it learned from"
