"""Radar plot: AUROC of every label on an axis of its own, one polygon per run, as the published study draws them.

The area of a polygon depends on the order of the labels and on where the axes begin, and it shows no uncertainty: it
stands beside the forest plot, never in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.projections.polar import PolarAxes

from fmct.evaluation.figures import MUTED, Look, figure, png
from fmct.evaluation.summary import LabelMetrics

FEWEST_LABELS: Final = 3
SIZE_IN: Final = 4.8


def radar_labels(results: Mapping[str, Sequence[LabelMetrics | None]]) -> list[str]:
    """Return the labels for which every run has an AUROC: a polygon with a missing corner would mislead."""
    return [label for label, runs in results.items() if all(run and run.auroc is not None for run in runs)]


def radar_figure(looks: Sequence[Look], results: Mapping[str, Sequence[LabelMetrics | None]]) -> bytes | None:
    """Draw a radar plot.

    Args:
        looks: how each run is drawn.
        results: for every label one result per run, None where a run has none.

    Returns:
        A PNG, or None when fewer than three labels have a result from every run.
    """
    labels = radar_labels(results)
    if len(labels) < FEWEST_LABELS or not looks:
        return None
    values_RL = np.array([[_auroc(results[label][run]) for label in labels] for run in range(len(looks))])
    center = min(0.5, float(np.floor(values_RL.min() * 10) / 10))
    angles = np.linspace(0, 2 * np.pi, len(labels), endpoint=False)
    closed = np.append(angles, angles[0])
    with figure(SIZE_IN, SIZE_IN) as drawing:
        axes = drawing.add_subplot(projection="polar")
        assert isinstance(axes, PolarAxes)
        axes.set_theta_offset(np.pi / 2)
        axes.set_theta_direction(-1)
        for look, values in zip(looks, values_RL, strict=True):
            axes.plot(
                closed,
                np.append(values, values[0]),
                color=look.color,
                linestyle=look.linestyle,
                marker=look.marker,
                markersize=4,
                linewidth=1.5,
            )
        axes.set_ylim(center, 1.0)
        ticks = [tick / 10 for tick in range(round(center * 10) + 1, 11)]
        axes.set_yticks(ticks, [f"{tick:.1f}" for tick in ticks], color=MUTED, fontsize=8)
        axes.set_rlabel_position(180 / len(labels))
        axes.set_xticks(angles, labels, fontsize=9)
        if center < 0.5:
            around = np.linspace(0, 2 * np.pi, 181)
            axes.plot(around, np.full(len(around), 0.5), color=MUTED, linewidth=0.9, linestyle=(0, (1, 3)))
        return png(drawing)


def _auroc(result: LabelMetrics | None) -> float:
    if result is None or result.auroc is None:
        raise ValueError("radar_labels lets no label through that lacks a result")
    return result.auroc
