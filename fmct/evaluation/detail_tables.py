"""Rows of the report's further tables: thresholds, calibration, subgroups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fmct.evaluation.figures import Look
from fmct.evaluation.operating_points import OperatingPoint
from fmct.evaluation.results import DataSetResults
from fmct.evaluation.subgroups import Subgroup
from fmct.evaluation.wording import MINUS, interval, share, signed, signed_interval

SHOWN: Final = ("specificity", 0.90)
"""The threshold in the table; `--json` has the others."""


@dataclass(frozen=True)
class DetailRow:
    """One run for one label: what its probabilities mean, and what a threshold fixed on validation scans does."""

    look: Look
    sensitivity: str
    specificity: str
    brier: str
    calibration_error: str
    slope: str


@dataclass(frozen=True)
class SubgroupTable:
    """One run's AUROC in every group, by label and division."""

    look: Look
    method: str
    rows: list[tuple[Subgroup, str, str]]


def detail_rows(results: DataSetResults, drawn: Sequence[Look]) -> list[tuple[str, list[DetailRow]]]:
    """Return the table label by run; runs evaluated by an earlier version have no row."""
    groups = []
    for label in results.labels:
        rows = []
        for run in results.evaluated:
            found = results.result(run, label)
            if found is None or found.calibration is None:
                continue
            points = [one for one in found.operating_points if (one.fixed, one.target) == SHOWN]
            sensitivity, specificity = ("n/a", "n/a") if not points else called(points[0])
            one = found.calibration
            rows.append(
                DetailRow(
                    look=drawn[run],
                    sensitivity=sensitivity,
                    specificity=specificity,
                    brier=f"{share(one.brier)} ({interval(one.brier_ci)})",
                    calibration_error=said(one.rmsce, one.rmsce_ci, ""),
                    slope="n/a" if one.slope is None else f"{plain(one.slope)} ({plain_interval(one.slope_ci)})",
                )
            )
        if rows:
            groups.append((label, rows))
    return groups


def called(point: OperatingPoint) -> tuple[str, str]:
    """Write sensitivity and specificity at a threshold, or why there is none."""
    sensitivity = said(point.sensitivity, point.sensitivity_ci, point.reason)
    return sensitivity, said(point.specificity, point.specificity_ci, "")


def said(value: float | None, bounds: tuple[float, float] | None, reason: str | None) -> str:
    """Write a value with its interval, or n/a with the reason."""
    if value is None:
        return f"n/a: {reason}" if reason else "n/a"
    return f"{share(value)} ({interval(bounds)})"


def plain_interval(bounds: tuple[float, float] | None) -> str:
    """Write an interval of numbers that are no shares."""
    return "no interval" if bounds is None else f"{plain(bounds[0])} to {plain(bounds[1])}"


def plain(value: float) -> str:
    """Write a number that is no share, with a true minus."""
    return f"{value:.2f}".replace("-", MINUS)


def subgroup_tables(results: DataSetResults, drawn: Sequence[Look]) -> list[SubgroupTable]:
    """Return for every run its subgroups, each with its AUROC and its distance from the rest in words."""
    tables = []
    for run in results.evaluated:
        evaluation = results.evaluations[run]
        found = evaluation.metrics.subgroups if evaluation else None
        if found is None or not found.rows:
            continue
        rows = [
            (
                one,
                said(one.auroc, one.auroc_ci, one.reason),
                "" if one.difference is None else f"{signed(one.difference)} ({signed_interval(one.difference_ci)})",
            )
            for one in found.rows
        ]
        tables.append(SubgroupTable(drawn[run], found.method, rows))
    return tables
