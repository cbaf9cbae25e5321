"""Everything that a report states, as plain values: the page is written from these, and `--json` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmct import __version__
from fmct.evaluation.cohort import manifest_summary, manifests_of
from fmct.evaluation.confidence import Bootstrap
from fmct.evaluation.findings import caveats, findings, pretraining_sentence
from fmct.evaluation.results import DataSetResults
from fmct.evaluation.run_folder import Run
from fmct.evaluation.training import training_summary


def report_numbers(
    runs: Sequence[Run], names: Sequence[str], gathered: Sequence[DataSetResults], settings: Bootstrap
) -> dict[str, Any]:
    """Return what a report states, ready for JSON.

    Args:
        runs: the runs.
        names: what each is called.
        gathered: their results by data set.
        settings: of the bootstrap for differences.

    Returns:
        fmct (version), bootstrap, runs, findings, caveats, data_sets (results, differences, means) and manifests.
    """
    is_baseline, is_classifier = [run.is_baseline for run in runs], [run.is_classifier for run in runs]
    described = [describe_run(run, name) for run, name in zip(runs, names, strict=True)]
    found = findings(gathered, names, settings)
    pretrainings = [
        pretraining_sentence(one["label"], one["training"]) for one in described if one["kind"] != "classifier"
    ]
    return {
        "fmct": __version__,
        "bootstrap": settings.model_dump(mode="json"),
        "runs": described,
        "findings": [{"headline": f.headline, "shown": f.shown, "undecided": f.undecided} for f in found],
        "pretraining": pretrainings,
        "caveats": caveats(gathered, is_classifier, is_baseline, settings),
        "data_sets": [describe_data_set(results, names) for results in gathered],
        "manifests": describe_manifests(runs, names),
    }


def describe_run(run: Run, name: str) -> dict[str, Any]:
    """Return a run's configuration in brief, its training and what it lacks."""
    lacking = {
        "environment.json": not run.environment,
        "metrics.csv": run.training is None,
        "pictures": not run.is_classifier and not run.pictures,
        "weights/SHA256SUMS": not run.checksums,
        "evaluations": run.is_classifier and not run.evaluations,
    }
    return {
        "name": run.name,
        "label": name,
        "folder": str(run.folder),
        "kind": run.kind,
        "mode": run.task.get("mode"),
        "weights": run.weights,
        "baseline": run.is_baseline,
        "seed": run.experiment.get("seed"),
        "training": training_summary(run),
        "missing": [file for file, absent in lacking.items() if absent],
    }


def describe_data_set(results: DataSetResults, names: Sequence[str]) -> dict[str, Any]:
    """Return all results and differences on one data set."""
    return {
        "name": results.name,
        "results": {
            names[run]: evaluation.metrics.model_dump(mode="json")
            for run, evaluation in enumerate(results.evaluations)
            if evaluation
        },
        "differences": [
            {
                "run": names[one.run],
                "baseline": names[one.baseline],
                "label": label,
                "verdict": one.auroc[label].verdict,
                "auroc": one.auroc[label].model_dump(mode="json"),
                "ap": one.ap[label].model_dump(mode="json"),
            }
            for one in results.comparisons
            for label in one.auroc
        ],
        "mean_differences": [
            {"run": names[one.run], "baseline": names[one.baseline]} | one.mean.model_dump(mode="json")
            for one in results.comparisons
            if one.mean
        ],
        "leaders": {label: names[run] for label, run in results.leaders.items()},
        "not_compared": results.refusals,
    }


def describe_manifests(runs: Sequence[Run], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return what the manifests behind the runs hold, each once."""
    described = []
    for manifest, users in manifests_of(runs).items():
        caches = [Path(runs[place].data["cache"]) for place in users if runs[place].data.get("cache")]
        summary = manifest_summary(Path(manifest), dict.fromkeys(caches))
        described.append({**summary, "used_by": [names[place] for place in users]})
    return described
