"""Studies of many runs that a report takes besides single ones: few-shot curves and transfer matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from fmct.console.errors import UsageError
from fmct.evaluation.few_shot import CurvePoint, FewShot
from fmct.evaluation.heat_map import heat_map
from fmct.evaluation.transfer import Transfer
from fmct.evaluation.wording import count, interval, listing, percent, share, signed, signed_interval

FEW_SHOT, TRANSFER = "fewshot.json", "transfer.json"
Contents = TypeVar("Contents", bound=BaseModel)


@dataclass(frozen=True)
class Studies:
    """The studies among the folders of a report, by folder."""

    few_shot: dict[Path, FewShot]
    transfer: dict[Path, Transfer]


def divide(folders: Sequence[Path]) -> tuple[list[Path], Studies]:
    """Tell the folders of studies from those of runs.

    Returns:
        The folders that hold neither fewshot.json nor transfer.json, and what the others hold.

    Raises:
        UsageError: when a file isn't laid out as this version writes it.
    """
    few_shot = {folder: read(folder / FEW_SHOT, FewShot) for folder in folders if (folder / FEW_SHOT).is_file()}
    transfer = {folder: read(folder / TRANSFER, Transfer) for folder in folders if (folder / TRANSFER).is_file()}
    return [f for f in folders if f not in few_shot and f not in transfer], Studies(few_shot, transfer)


def read(path: Path, layout: type[Contents]) -> Contents:
    """Read a study's file.

    Raises:
        UsageError: when it isn't laid out as this version writes it.
    """
    try:
        return layout.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the file isn't laid out as this version writes it: {str(error).splitlines()[0]}",
            path,
            "run the command that made it again: finished runs aren't repeated",
        ) from error


def few_shot_sentences(study: FewShot) -> list[str]:
    """Say what every initialization gives over the baseline at each k, as a mean over labels."""
    if not study.mean.labels or study.baseline is None:
        return []
    level, labels = percent(study.settings.confidence), count(len(study.mean.labels), "label")
    sentences = []
    for name in study.initializations:
        if name == study.baseline:
            continue
        by_verdict: dict[str, list[str]] = {"more": [], "less": [], "": []}
        for point in study.mean.points:
            difference = point.auroc_difference
            if point.initialization == name and difference.mean is not None:
                bounds = f" ({level} CI {signed_interval(difference.ci)})" if difference.ci else " (no interval)"
                by_verdict[verdict(point)].append(f"k = {point.k}: {signed(difference.mean)}{bounds}")
        said = {
            "more": f"{name} is above {study.baseline}",
            "less": f"{name} is below {study.baseline}",
            "": f"No difference between {name} and {study.baseline} is shown",
        }
        sentences += [
            f"{said[key]} in mean AUROC over {labels} ({count(study.seeds, 'draw')}) at {listing(places)}."
            for key, places in by_verdict.items()
            if places
        ]
    return sentences


def verdict(point: CurvePoint) -> str:
    """Return more, less or nothing, as the interval of a difference lies above, below or about zero."""
    bounds = point.auroc_difference.ci
    if bounds is None or bounds[0] <= 0 <= bounds[1]:
        return ""
    return "more" if bounds[0] > 0 else "less"


@dataclass(frozen=True)
class ShotRow:
    """One initialization of one label: a text per k."""

    initialization: str
    cells: list[str]
    differences: list[str]


def few_shot_rows(study: FewShot) -> list[tuple[str, str, list[ShotRow]]]:
    """Return the table: name of the label, its sample, and a row per initialization."""
    groups: list[tuple[str, str, Sequence[CurvePoint]]] = []
    if study.mean.labels:
        groups.append(("Mean over labels", f"of {', '.join(study.mean.labels)}", study.mean.points))
    for label, one in study.labels.items():
        sample = f"{count(one.n_scans, 'scan')} of {count(one.n_patients, 'patient')}, {one.n_positive:,} positive"
        groups.append((label, sample, one.points))
    table = []
    for label, sample, points in groups:
        rows = []
        for name in study.initializations:
            at = {point.k: point for point in points if point.initialization == name}
            rows.append(
                ShotRow(
                    name,
                    [cell(at.get(k)) for k in study.shots],
                    [difference_cell(at.get(k)) for k in study.shots],
                )
            )
        table.append((label, sample, rows))
    return table


def cell(point: CurvePoint | None) -> str:
    """Write a point of a curve: its mean and its interval, or why there is none."""
    if point is None or point.auroc.mean is None:
        return f"n/a: {point.reason}" if point and point.reason else "n/a"
    return f"{share(point.auroc.mean)} ({interval(point.auroc.ci)})"


def difference_cell(point: CurvePoint | None) -> str:
    """Write a point's difference to the baseline, empty where there is none."""
    if point is None or point.auroc_difference.mean is None:
        return ""
    return f"{signed(point.auroc_difference.mean)} ({signed_interval(point.auroc_difference.ci)})"


def transfer_figures(study: Transfer) -> list[tuple[str, bytes]]:
    """Draw the matrix of the mean over labels, then of every label, for each further value of the grid.

    Returns:
        (title, PNG) pairs.
    """
    groups: dict[str, list[tuple[str, str, float | None, tuple[float, float] | None]]] = {}
    for mean in study.mean:
        place = groups.setdefault("mean over labels" + aside(mean.others), [])
        place.append((mean.train_site, mean.test_site, mean.auroc.mean, mean.auroc.ci))
    for one in study.cells:
        groups.setdefault(one.label + aside(one.others), []).append((one.train_site, one.test_site, one.auroc, one.ci))
    figures = []
    for title, found in groups.items():
        rows = list(dict.fromkeys(train for train, *_ in found))
        columns = list(dict.fromkeys(test for _, test, *_ in found))
        values, notes = np.full((len(rows), len(columns)), np.nan), [[""] * len(columns) for _ in rows]
        for train, test, value, bounds in found:
            row, column = rows.index(train), columns.index(test)
            values[row, column] = np.nan if value is None else value
            notes[row][column] = interval(bounds) if value is not None else ""
        figures.append((title, heat_map(f"AUROC, {title}", rows, columns, values, notes)))
    return figures


def aside(others: Mapping[str, object]) -> str:
    """Write the further values of a grid in parentheses; nothing where there are none."""
    return f" ({', '.join(f'{key} {value}' for key, value in others.items())})" if others else ""
