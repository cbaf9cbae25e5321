"""The report as one self-contained HTML page: numbers, figures and pictures put into the template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fmct import __version__
from fmct.evaluation import wording
from fmct.evaluation.confidence import Bootstrap
from fmct.evaluation.curves import Scores, known_scores, precision_recall_figure, roc_figure
from fmct.evaluation.descriptions import run_labels
from fmct.evaluation.detail_tables import detail_rows, subgroup_tables
from fmct.evaluation.figures import Look, looks
from fmct.evaluation.forest import forest_figure
from fmct.evaluation.numbers import report_numbers
from fmct.evaluation.overview import overview
from fmct.evaluation.page_sections import Beside, embeddings_view, maps_view, studies_view
from fmct.evaluation.picture import Picture
from fmct.evaluation.radar import radar_figure
from fmct.evaluation.reliability import reliability_figure
from fmct.evaluation.results import DataSetResults, gather
from fmct.evaluation.run_folder import Run, read_runs
from fmct.evaluation.scans import cache_pictures, caches_of
from fmct.evaluation.tables import difference_groups, mean_rows, result_rows
from fmct.evaluation.templates import fill
from fmct.evaluation.training import loss_figure

NOTHING_BESIDE = Beside()


@dataclass(frozen=True)
class Report:
    """A report in both its forms: the same numbers for a person and for a script."""

    numbers: dict[str, Any]
    html: str


def make_report(
    folders: Sequence[Path], title: str, settings: Bootstrap, scans_shown: int, beside: Beside = NOTHING_BESIDE
) -> Report:
    """Read runs, compare them and write the page.

    Args:
        folders: run folders.
        title: heading of the page.
        settings: of the bootstrap for differences between runs.
        scans_shown: how many scans of each cache to show.
        beside: embeddings, maps and studies.

    Raises:
        UsageError: when a folder is no run or a file in it is damaged.
    """
    runs = read_runs(folders)
    names = run_labels(runs)
    drawn = looks(names, [run.is_baseline for run in runs], [run.is_classifier for run in runs])
    gathered = gather(runs, names, settings)
    embedded = embeddings_view(runs, beside.embeddings, settings)
    numbers = report_numbers(runs, names, gathered, settings) | {
        "shortcuts": {one["path"]: one["shortcuts"] for one in embedded},
        "few_shot": {str(path): study.model_dump(mode="json") for path, study in beside.studies.few_shot.items()},
        "transfer": {str(path): study.model_dump(mode="json") for path, study in beside.studies.transfer.items()},
    }
    context = {
        "title": title,
        "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "version": __version__,
        "numbers": numbers,
        "confidence": wording.percent(settings.confidence),
        "looks": drawn,
        "overview": overview(gathered, drawn),
        "data_sets": [data_set_view(results, drawn) for results in gathered],
        "training": [training_view(run, look) for run, look in zip(runs, drawn, strict=True)],
        "pictures": [view for run, look in zip(runs, drawn, strict=True) if (view := pictures_view(run, look))],
        "caches": [cache_view(path, scans_shown) for path in caches_of(runs)],
        "embeddings": embedded,
        "maps": [maps_view(folder) for folder in beside.maps],
        **studies_view(beside.studies),
        "provenance": [provenance_view(run, look) for run, look in zip(runs, drawn, strict=True)],
    }
    return Report(numbers, fill("report.html", context, "evaluation"))


def data_set_view(results: DataSetResults, drawn: Sequence[Look]) -> dict[str, Any]:
    """Return tables and figures of one data set."""
    evaluated = results.evaluated
    lines = {label: [results.result(run, label) for run in evaluated] for label in results.labels}
    forest = forest_figure([drawn[run] for run in evaluated], lines)
    radar = radar_figure([drawn[run] for run in evaluated], lines)
    return {
        "name": results.name,
        "looks": [drawn[run] for run in evaluated],
        "confidence": wording.listing(
            sorted({wording.percent(e.metrics.settings.confidence) for e in results.evaluations if e})
        ),
        "groups": result_rows(results, drawn),
        "means": mean_rows(results, drawn),
        "differences": difference_groups(results, drawn),
        "refusals": results.refusals,
        "sites": tally(results, "site"),
        "splits": tally(results, "split"),
        "forest": Picture.of(
            forest, f"Forest plot of AUROC with intervals on {results.name}; the table has the numbers"
        ),
        "radar": Picture.of(radar, f"Radar plot of AUROC on {results.name}; the table has the numbers")
        if radar
        else None,
        "details": detail_rows(results, drawn),
        "subgroups": subgroup_tables(results, drawn),
        "reliability": [shown for label in results.labels if (shown := reliability_view(results, label, drawn))],
        "curves": [view for label in results.labels if (view := curves_view(results, label, drawn))],
    }


def tally(results: DataSetResults, column: str) -> str:
    """Count the scans of the first run by site or split: "site_b 60, site_c 12"."""
    for run in results.evaluated:
        predictions = results.predictions(run)
        if predictions is not None and column in predictions:
            values = predictions.drop_duplicates("scan_id")[column].astype("string").replace("", None)
            counts = values.dropna().value_counts()
            return ", ".join(f"{value} {number:,}" for value, number in counts.items())
    return ""


def curves_view(results: DataSetResults, label: str, drawn: Sequence[Look]) -> dict[str, Any] | None:
    """Draw the curves of one label; None where no run has predictions of both classes."""
    scores: list[Scores] = []
    for run in results.evaluated:
        predictions = results.predictions(run)
        if predictions is not None:
            rows = predictions[predictions["label"] == label]
            known = known_scores(
                drawn[run],
                rows["target"].to_numpy(np.float64),
                rows["probability"].to_numpy(np.float64),
                rows["patient_id"].to_numpy(object),
            )
            scores += [known] if known else []
    if not scores:
        return None
    return {
        "label": label,
        "roc": Picture.of(roc_figure(f"{label}: ROC", scores), f"ROC curves of {label} on {results.name}"),
        "pr": Picture.of(
            precision_recall_figure(f"{label}: precision and recall", scores),
            f"Precision-recall curves of {label} on {results.name}",
        ),
    }


def reliability_view(results: DataSetResults, label: str, drawn: Sequence[Look]) -> Picture | None:
    """Draw the reliability curves of one label; None where no run has any."""
    found = [(drawn[run], result.calibration) for run in results.evaluated if (result := results.result(run, label))]
    runs = [(look, calibration) for look, calibration in found if calibration]
    if not runs:
        return None
    return Picture.of(reliability_figure(f"{label}: reliability", runs), f"Reliability of {label} on {results.name}")


def training_view(run: Run, look: Look) -> dict[str, Any]:
    """Return the loss curves of one run, None where none was logged."""
    drawing = loss_figure(run, look)
    return {"look": look, "loss": Picture.of(drawing, f"Loss by step of {look.label}") if drawing else None}


def pictures_view(run: Run, look: Look) -> dict[str, Any] | None:
    """Return the last pictures that a pretraining run made of itself; None for other runs."""
    if run.is_classifier:
        return None
    pictures = []
    for subject, path in sorted(run.pictures.items()):
        caption = f"{subject.replace('_', ' ')}, step {int(path.stem.rpartition('step')[2]):,}"
        pictures.append(Picture.read(path, f"{caption}, of {look.label}", caption))
    return {"look": look, "pictures": pictures}


def cache_view(path: Path, scans_shown: int) -> dict[str, Any]:
    """Return pictures of the first scans of a cache."""
    shown = cache_pictures(path, scans_shown)
    view = "middle axial, coronal and sagittal slice of scan"
    return {
        "path": str(path),
        "scans": shown.scans,
        "problem": shown.problem,
        "pictures": [Picture.of(content, f"{view} {scan_id}", scan_id) for scan_id, content in shown.pictures],
    }


def provenance_view(run: Run, look: Look) -> dict[str, Any]:
    """Return a run's configuration, environment and checksums as text."""
    return {
        "look": look,
        "folder": str(run.folder),
        "configuration": yaml.safe_dump(run.experiment, sort_keys=False, allow_unicode=True),
        "environment": json.dumps(run.environment, indent=2, ensure_ascii=False) if run.environment else "",
        "checksums": run.checksums,
    }
