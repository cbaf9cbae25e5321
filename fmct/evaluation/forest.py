"""Forest plot: AUROC with its interval, one line per run under every label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fmct.evaluation.figures import MUTED, Look, figure, png, single_axes
from fmct.evaluation.summary import LabelMetrics
from fmct.evaluation.wording import share

ROW_IN: Final = 0.26
GAP_ROWS: Final = 1.5


def forest_figure(looks: Sequence[Look], results: Mapping[str, Sequence[LabelMetrics | None]]) -> bytes:
    """Draw a forest plot.

    Args:
        looks: how each run is drawn.
        results: for every label one result per run, None where a run has none.
    """
    rows = sum(len(looks) + GAP_ROWS for _ in results)
    defined = [result for runs in results.values() for result in runs if result and result.auroc is not None]
    lowest = min([0.5, *(min([result.auroc or 0.5, *(result.auroc_ci or ())]) for result in defined)])
    left = max(0.0, lowest - 0.04)
    with figure(4.8, ROW_IN * rows + 0.7) as drawing:
        axes = single_axes(drawing)
        row = 0.0
        for label, runs in results.items():
            axes.text(left, row, label, fontweight="bold", va="center", backgroundcolor="white")
            row += 1
            for look, result in zip(looks, runs, strict=True):
                if result is None or result.auroc is None:
                    said = "not evaluated" if result is None else f"n/a: {result.reason}"
                    axes.text(left, row, said, color=MUTED, fontsize=8, va="center", backgroundcolor="white")
                else:
                    if result.auroc_ci:
                        axes.plot(result.auroc_ci, [row, row], color=look.color, linewidth=2)
                    face = look.color if result.auroc_ci else "white"
                    axes.plot(
                        [result.auroc], [row], look.marker, color=look.color, markersize=6.5, markerfacecolor=face
                    )
                    axes.text(1.02, row, share(result.auroc), fontsize=9, va="center")
                row += 1
            row += GAP_ROWS - 1
        axes.axvline(0.5, color=MUTED, linewidth=0.9, linestyle=(0, (1, 3)))
        axes.set(xlim=(left, 1.11), ylim=(row - 0.5, -0.8), xlabel="AUROC (dotted: chance)", yticks=[])
        axes.set_xticks([tick / 10 for tick in range(11) if left <= tick / 10])
        axes.spines["left"].set_visible(False)
        axes.spines["bottom"].set_bounds(left, 1.0)
        axes.grid(visible=False, axis="y")
        return png(drawing)
