"""The look of all figures: one color, dash and marker per run, the same on the whole page; PNG out."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DOTS_PER_INCH = 160
INK = "#1f2a33"
MUTED = "#66727d"
GRID = "#e3e8ec"
BASELINE_COLOR = "#59636d"
# Okabe and Ito's palette, told apart with any color vision; without its yellow, which is too pale on white.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES: tuple[tuple[int, ...], ...] = ((), (7, 3), (2, 2), (7, 2, 2, 2))
MARKERS = ("o", "s", "D", "^", "v", "P")


@dataclass(frozen=True)
class Look:
    """How one run is drawn everywhere.

    Attributes:
        label: what the run is called.
        color: hexadecimal.
        dashes: on and off lengths in points, empty for a solid line.
        marker: matplotlib's marker code.
    """

    label: str
    color: str
    dashes: tuple[int, ...]
    marker: str

    @property
    def linestyle(self) -> str | tuple[int, tuple[int, ...]]:
        """The dashes as matplotlib takes them."""
        return (0, self.dashes) if self.dashes else "solid"


def looks(labels: Sequence[str], is_baseline: Sequence[bool], is_classifier: Sequence[bool]) -> list[Look]:
    """Give every run its look: baselines gray, the other classifiers the first colors, pretrainings the next."""
    kinds = list(zip(is_baseline, is_classifier, strict=True))
    baselines = [run for run, (baseline, _) in enumerate(kinds) if baseline]
    colored = [run for run, (baseline, classifier) in enumerate(kinds) if classifier and not baseline]
    colored += [run for run, (_, classifier) in enumerate(kinds) if not classifier]
    drawn = {run: Look(labels[run], BASELINE_COLOR, DASHES[1 + n % 3], MARKERS[0]) for n, run in enumerate(baselines)}
    for n, run in enumerate(colored):
        turn, place = divmod(n, len(PALETTE))
        drawn[run] = Look(labels[run], PALETTE[place], DASHES[turn % len(DASHES)], MARKERS[1 + place % 5])
    return [drawn[run] for run in range(len(labels))]


@contextmanager
def figure(width_in: float, height_in: float) -> Iterator[Figure]:
    """Yield a figure in the report's style; text is taken literally, so that a `$` in a name stays a `$`."""
    style: dict[Any, Any] = {
        "font.size": 10.0,
        "font.family": "DejaVu Sans",
        "text.parse_math": False,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11.0,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "lines.linewidth": 1.8,
    }
    with mpl.rc_context(style):
        drawing = Figure(figsize=(width_in, height_in), dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
        FigureCanvasAgg(drawing)
        yield drawing


def single_axes(drawing: Figure) -> Axes:
    """Return the only axes of a figure."""
    axes: Axes = drawing.subplots()
    return axes


def png(drawing: Figure) -> bytes:
    """Return a figure as PNG, without the time of its making, so that equal figures are equal bytes."""
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
