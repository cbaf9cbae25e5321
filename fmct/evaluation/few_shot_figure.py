"""Few-shot curves: AUROC over the number of labelled patients, a panel per label, the mean over labels first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes

from fmct.evaluation.few_shot import CurvePoint, FewShot
from fmct.evaluation.figures import MUTED, Look, figure, png

PANEL_IN: Final = 3.2
COLUMNS: Final = 3
APART: Final = 0.05


def few_shot_figure(study: FewShot, looks: Mapping[str, Look]) -> bytes:
    """Draw the curves of every label that has any, with intervals that cover test patients and seeds.

    Args:
        study: the contents of fewshot.json.
        looks: how each initialization is drawn.

    Returns:
        A PNG.
    """
    panels: list[tuple[str, Sequence[CurvePoint]]] = []
    if study.mean.labels:
        panels.append((f"mean of {len(study.mean.labels)} labels", study.mean.points))
    panels += [(label, curves.points) for label, curves in study.labels.items()]
    panels = [panel for panel in panels if any(point.auroc.mean is not None for point in panel[1])]
    columns = min(COLUMNS, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    with figure(PANEL_IN * columns, PANEL_IN * rows) as drawing:
        grid = drawing.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axes, (title, points) in zip(grid, panels, strict=False):
            draw_curves(axes, points, looks, study.shots)
            axes.set_title(title)
        for axes in grid[len(panels) :]:
            axes.axis("off")
        return png(drawing)


def draw_curves(axes: Axes, points: Sequence[CurvePoint], looks: Mapping[str, Look], shots: Sequence[int]) -> None:
    """Draw the curves of one panel over log k, a little apart so that intervals don't cover one another."""
    axes.axhline(0.5, color=MUTED, linewidth=0.9, linestyle=(0, (1, 3)))
    for place, (name, look) in enumerate(looks.items()):
        mine = [point for point in points if point.initialization == name and point.auroc.mean is not None]
        aside = 1 + APART * (place - (len(looks) - 1) / 2)
        at = [point.k * aside for point in mine]
        means = [point.auroc.mean or 0.0 for point in mine]
        axes.plot(at, means, color=look.color, linestyle=look.linestyle, marker=look.marker, markersize=5)
        for x, point in zip(at, mine, strict=True):
            if point.auroc.ci:
                axes.plot([x, x], point.auroc.ci, color=look.color, linewidth=1.1, alpha=0.6)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(shots), [str(k) for k in shots])
    axes.minorticks_off()
    axes.set(xlabel="patients per class", ylabel="AUROC")
