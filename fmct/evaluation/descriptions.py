"""What runs are called in a report: by what was done, since names of folders tell a reader nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fmct.console.errors import UsageError
from fmct.evaluation.run_folder import PRETEXT_NAMES, Run
from fmct.experiment.run_record import read_experiment

WAYS = {
    "linear": "Linear probe",
    "attentive": "Attentive probe",
    "lora": "Low-rank adaptation",
    "knn": "Nearest neighbors",
    "logreg": "Logistic regression",
}
"""What modes of classifiers are called where they don't train the whole backbone."""


def run_labels(runs: Sequence[Run]) -> list[str]:
    """Return a distinct label for every run, such as "Fine-tuned from MAE pretraining".

    Runs that were made alike get their names added, runs of one name their folders.
    """
    described = [description(run, runs) for run in runs]
    named = [
        f"{text} ({run.name})" if described.count(text) > 1 else text for text, run in zip(described, runs, strict=True)
    ]
    counts = Counter(named)
    return [f"{text} in {run.folder}" if counts[text] > 1 else text for text, run in zip(named, runs, strict=True)]


def description(run: Run, runs: Sequence[Run]) -> str:
    """Say in a few words how a run was made."""
    if not run.is_classifier:
        name = PRETEXT_NAMES.get(run.kind, run.kind)
        return f"{name[:1].upper()}{name[1:]} pretraining"
    way = WAYS.get(str(run.task.get("mode")))
    if run.features:
        return f"{way} on features of {', '.join(Path(table).stem for table in run.features)}"
    if run.weights is None:
        return f"{way} on random weights" if way else "Trained from scratch"
    source = origin(run.weights, runs)
    return f"{way} on {source}" if way else f"Fine-tuned from {source}"


def as_subject(label: str) -> str:
    """Return a label as it reads in the middle of a sentence: training from scratch, fine-tuned from DINO."""
    if label.startswith("Trained from scratch"):
        return label.replace("Trained", "training", 1)
    return label[:1].lower() + label[1:] if label[:2] != label[:2].upper() else label


def origin(weights: str, runs: Sequence[Run]) -> str:
    """Say which pretraining a weight package or checkpoint came from.

    Looks among the given runs, then on disk, and otherwise names the folder.
    """
    path = Path(weights)
    for folder in [path, *path.parents]:
        for run in runs:
            if not run.is_classifier and folder.name in {run.folder.resolve().name, run.name} and folder.name:
                return pretraining(run.kind, run, runs)
    for folder in [path, *path.parents][:3]:
        if (folder / "experiment.yaml").is_file():
            try:
                task = read_experiment(folder).get("task")
            except UsageError:
                continue  # somebody else's damaged run is no reason to refuse this report
            kind = task.get("kind") if isinstance(task, dict) else None
            return f"{PRETEXT_NAMES.get(str(kind), str(kind))} pretraining"
    named = path.parent.name if path.name == "weights" and path.parent.name else path.name
    return f"the weights {named}"


def pretraining(kind: str, run: Run, runs: Sequence[Run]) -> str:
    """Name a pretraining among the given runs, by its own name where two are of one kind."""
    alike = [other for other in runs if other.kind == kind]
    name = f" ({run.name})" if len(alike) > 1 else ""
    return f"{PRETEXT_NAMES.get(kind, kind)} pretraining{name}"
