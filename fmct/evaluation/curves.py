"""ROC and precision-recall curves of one label, all runs in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from fmct.evaluation.curve_bands import PLACES, Band, curve_band
from fmct.evaluation.figures import MUTED, Look, figure, png, single_axes
from fmct.evaluation.metrics import Floats
from fmct.evaluation.wording import share

WIDTH_IN, HEIGHT_IN = 4.4, 4.1
MOST_BANDS = 3
"""Of more runs in one figure no bands are drawn: they would hide one another."""


@dataclass(frozen=True)
class Scores:
    """What one run says about the scans of a label whose targets are known, of both classes.

    Attributes:
        look: how the run is drawn.
        target: (N,) 0 or 1.
        score: (N,) probability.
        patient: (N,) whose scan it is.
    """

    look: Look
    target: Floats
    score: Floats
    patient: NDArray[np.object_]

    def draw_band(self, axes: Axes, curve: Literal["roc", "pr"]) -> None:
        """Draw the pointwise 95 % band of a curve, pale, where there are patients enough for one."""
        band: Band | None = curve_band(curve, self.target, self.score, self.patient)
        if band:
            axes.fill_between(PLACES, band.low, band.high, color=self.look.color, alpha=0.13, linewidth=0)


def roc_figure(title: str, runs: Sequence[Scores]) -> bytes:
    """Draw ROC curves, linear between thresholds, so that the area under them is the AUROC that the table states."""
    with figure(WIDTH_IN, HEIGHT_IN) as drawing:
        axes = single_axes(drawing)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (1, 3)))
        for run in runs:
            if len(runs) <= MOST_BANDS:
                run.draw_band(axes, "roc")
            false_positive_rate, true_positive_rate, _ = roc_curve(run.target, run.score)
            axes.plot(false_positive_rate, true_positive_rate, color=run.look.color, linestyle=run.look.linestyle)
        axes.set(
            title=title,
            xlabel="1 − specificity (dotted: chance)",
            ylabel="sensitivity",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
        )
        axes.set_aspect("equal")
        return png(drawing)


def precision_recall_figure(title: str, runs: Sequence[Scores]) -> bytes:
    """Draw precision-recall curves and the prevalence, which is what chance gives."""
    prevalences = sorted({round(float(run.target.mean()), 4) for run in runs})
    with figure(WIDTH_IN, HEIGHT_IN) as drawing:
        axes = single_axes(drawing)
        for prevalence in prevalences:
            axes.axhline(prevalence, color=MUTED, linewidth=0.9, linestyle=(0, (1, 3)))
        for run in runs:
            if len(runs) <= MOST_BANDS:
                run.draw_band(axes, "pr")
            recall, precision = steps(run.target, run.score)
            axes.plot(recall, precision, color=run.look.color, linestyle=run.look.linestyle, drawstyle="steps-pre")
        dotted = f"dotted: prevalence {' and '.join(share(prevalence) for prevalence in prevalences)}"
        axes.set(title=title, xlabel=f"recall = sensitivity ({dotted})", ylabel="precision = positive predictive value")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_aspect("equal")
        return png(drawing)


def steps(target: Floats, score: Floats) -> tuple[Floats, Floats]:
    """Return the steps whose area is the average precision: at each recall, the precision where it is first reached.

    Args:
        target: (N,) 0 or 1, both present.
        score: (N,).

    Returns:
        recall (K + 1,) from 0 up to 1, and precision (K + 1,), which holds from the recall before to this one.
    """
    precision, recall, _ = precision_recall_curve(target, score, drop_intermediate=False)
    recall, precision = recall[:-1][::-1], precision[:-1][::-1]  # without scikit-learn's made-up end; recall ascending
    reached, first = np.unique(recall, return_index=True)
    keep = reached > 0
    at = precision[first[keep]]
    return np.concatenate([[0.0], reached[keep]]), np.concatenate([at[:1], at])


def known_scores(look: Look, target: Floats, score: Floats, patient: NDArray[np.object_]) -> Scores | None:
    """Leave out scans with unknown targets; None where fewer than two classes remain."""
    known = ~np.isnan(target)
    if len(np.unique(target[known])) < 2:
        return None
    return Scores(look, target[known], score[known], patient[known])
