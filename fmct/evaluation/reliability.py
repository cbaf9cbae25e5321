"""Reliability: how often a finding is there among scans of about the same predicted probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from fmct.evaluation.calibration import CalibrationMetrics
from fmct.evaluation.figures import MUTED, Look, figure, png, single_axes

SIZE_IN: Final = 4.1


def reliability_figure(title: str, runs: Sequence[tuple[Look, CalibrationMetrics]]) -> bytes:
    """Draw the reliability curves of one label, each bin with its interval.

    Args:
        title: of the figure.
        runs: how each run is drawn, and its calibration.

    Returns:
        A PNG.
    """
    with figure(SIZE_IN, SIZE_IN) as drawing:
        axes = single_axes(drawing)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (1, 3)))
        for look, calibration in runs:
            points = calibration.curve
            predicted = np.array([point.predicted for point in points])
            observed = np.array([point.observed for point in points])
            axes.plot(
                predicted,
                observed,
                color=look.color,
                linestyle=look.linestyle,
                marker=look.marker,
                markersize=4.5,
                linewidth=1.3,
            )
            for point in points:
                if point.observed_ci:
                    axes.plot([point.predicted] * 2, point.observed_ci, color=look.color, linewidth=0.9, alpha=0.55)
        axes.set(
            title=title,
            xlabel="mean predicted probability",
            ylabel="share with the finding (dotted: as predicted)",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
        )
        axes.set_aspect("equal")
        return png(drawing)
