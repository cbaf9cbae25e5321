"""metrics.json as text for a terminal, at most 100 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from fmct.evaluation.operating_points import OperatingPoint
from fmct.evaluation.summary import LabelMetrics, Metrics

WIDTH = 100
NAME = 20
SHOWN = ("specificity", 0.90)
"""The threshold in the table; metrics.json has the others."""


def printed(metrics: Metrics) -> str:
    """Lay the metrics out as text, an undefined one as n/a with its reason."""
    parts = [ranking_table(metrics), calibration_table(metrics), threshold_table(metrics), subgroup_lines(metrics)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def row(cells: Sequence[tuple[str, int]]) -> str:
    """Put cells side by side: a positive width aligns to the left, a negative one to the right."""
    line = "".join(f"{text:<{width}}" if width > 0 else f"{text:>{-width}}" for text, width in cells)
    return line[:WIDTH].rstrip()


def ranking_table(metrics: Metrics) -> list[str]:
    """Return AUROC and average precision of every label."""
    said = f"({100 * metrics.settings.confidence:g} % CI)"
    head = [("label", NAME), ("n", -6), ("n+", -6), ("patients", -10), ("", 2)]
    lines = [row([*head, (f"AUROC {said}", 25), (f"AP {said}", 25)])]
    for name, label in metrics.labels.items():
        counts = [(short(name), NAME), (str(label.n_scans), -6), (str(label.n_positive), -6)]
        counts += [(str(label.n_patients), -10), ("", 2)]
        if label.status != "ok":
            lines.append(row([*counts, (f"n/a: {label.reason}", WIDTH)]))
            continue
        lines.append(row([*counts, (cell(label.auroc, label.auroc_ci), 25), (cell(label.ap, label.ap_ci), 25)]))
    return lines


def defined(metrics: Metrics) -> list[tuple[str, LabelMetrics]]:
    """Return the labels that have a result."""
    return [(name, label) for name, label in metrics.labels.items() if label.status == "ok"]


def calibration_table(metrics: Metrics) -> list[str]:
    """Return how far probabilities can be taken at their word; nothing where no label has a result."""
    found = [(name, label.calibration) for name, label in defined(metrics) if label.calibration]
    if not found:
        return []
    head = [("calibration", NAME), ("Brier (CI)", 20), ("skill", -6), ("ECE", -7), ("", 2), ("intercept (CI)", 24)]
    lines = [row([*head, ("slope (CI)", 21)])]
    for name, one in found:
        cells = [(short(name), NAME), (cell(one.brier, one.brier_ci, "-"), 20), (f"{one.brier_skill:.2f}", -6)]
        cells += [(number(one.ece if one.ece_debiased is None else one.ece_debiased), -7), ("", 2)]
        cells += [(cell(one.intercept, one.intercept_ci, " to ", 2), 24), (cell(one.slope, one.slope_ci, "-", 2), 21)]
        lines.append(row(cells))
    return lines


def threshold_table(metrics: Metrics) -> list[str]:
    """Return sensitivity and specificity at one threshold, or why there is none."""
    where = metrics.thresholds
    if where is None:
        return []
    if where.reason:
        return wrapped(f"no sensitivity or specificity: {where.reason}")
    rate, target = SHOWN
    manifest = where.manifest.replace("\\", "/").rpartition("/")[2]
    lines = wrapped(
        f"at thresholds fixed on {where.n_scans} validation scans (split {', '.join(where.splits)} of {manifest}) for "
        f"{rate} {target:.2f}"
    )
    head = [("", NAME), ("threshold", -9), ("", 2), ("sensitivity (CI)", 25), ("specificity (CI)", 25)]
    lines.append(row(head))
    for name, label in defined(metrics):
        for point in label.operating_points:
            if (point.fixed, point.target) == SHOWN:
                lines.append(point_line(name, point))
    return lines


def point_line(name: str, point: OperatingPoint) -> str:
    """Return one label's line at a threshold."""
    if point.threshold is None:
        return row([(short(name), NAME), (f"n/a: {point.reason}", WIDTH)])
    rates = [
        (cell(point.sensitivity, point.sensitivity_ci), 25),
        (cell(point.specificity, point.specificity_ci), 25),
    ]
    return row([(short(name), NAME), (f"{point.threshold:.3g}", -9), ("", 2), *rates])


def subgroup_lines(metrics: Metrics) -> list[str]:
    """Say in how many subgroups the AUROC differs from that of all other scans, and in which."""
    if metrics.subgroups is None or not metrics.subgroups.rows:
        return []
    judged = [one for one in metrics.subgroups.rows if one.difference is not None and one.difference_ci]
    apart = [one for one in judged if one.difference_ci and not one.difference_ci[0] <= 0 <= one.difference_ci[1]]
    chance = (1 - metrics.settings.confidence) * len(judged)
    said = f"{len(metrics.subgroups.rows)} subgroups by {', '.join(metrics.subgroups.by)} (in metrics.json), "
    if not judged:
        return wrapped(f"{said}none with enough patients to be compared with the rest")
    lines = wrapped(
        f"{said}{len(judged)} with enough patients to be compared with the rest; {len(apart) or 'none'} "
        f"differ{'' if len(apart) > 1 else 's'} from it, where about {chance:.1f} would by chance{':' if apart else ''}"
    )
    for one in apart:
        value, bounds = one.difference, one.difference_ci
        if value is not None and bounds is not None:
            what = f"  {one.label}, {one.by} {one.group}: AUROC {number(one.auroc)}, "
            lines.append((what + f"{value:+.3f} ({bounds[0]:+.3f} to {bounds[1]:+.3f}) from the rest")[:WIDTH])
    return lines


def cell(value: float | None, bounds: tuple[float, float] | None, between: str = " to ", digits: int = 3) -> str:
    """Write a value with its interval, such as 0.912 (0.871 to 0.950)."""
    if value is None:
        return "n/a"
    if bounds is None:
        return f"{number(value, digits)} (no interval)"
    separator = between if min(bounds) >= 0 else " to "
    return f"{number(value, digits)} ({number(bounds[0], digits)}{separator}{number(bounds[1], digits)})"


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with as many digits, fewer from 10 on; n/a where there is none."""
    if value is None:
        return "n/a"
    return f"{value:.{digits}f}" if abs(value) < 10 else f"{value:.0f}"


def short(name: str) -> str:
    """Return a label's name, cut where the column ends."""
    return name if len(name) < NAME else name[: NAME - 2] + "…"


def wrapped(text: str) -> list[str]:
    """Break a sentence into lines."""
    return textwrap.wrap(text, WIDTH)
