"""Heat map of a site-by-site table: trained on the row's site, tested on the column's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from fmct.evaluation.figures import INK, figure, png, single_axes
from fmct.evaluation.metrics import Floats
from fmct.evaluation.wording import share

CELL_IN: Final = 0.95
COLORS: Final = LinearSegmentedColormap.from_list("auroc", ["#ffffff", "#cfe3f1", "#56a0d0", "#0b4f86"])
DARK_FROM: Final = 0.82


def heat_map(
    title: str, rows: Sequence[str], columns: Sequence[str], auroc_RC: Floats, notes: Sequence[Sequence[str]]
) -> bytes:
    """Draw AUROC in cells, from white at chance to dark at 1; what is undefined stays empty and says n/a.

    Args:
        title: of the figure.
        rows: names of R training sites.
        columns: names of C test sites.
        auroc_RC: (R, C), NaN where undefined.
        notes: (R, C) texts under the values, such as an interval or a number of scans.

    Returns:
        A PNG.
    """
    with figure(CELL_IN * len(columns) + 2.2, CELL_IN * 0.75 * len(rows) + 1.3) as drawing:
        axes = single_axes(drawing)
        axes.imshow(np.ma.masked_invalid(auroc_RC), cmap=COLORS, vmin=0.5, vmax=1.0, aspect="auto")
        for row in range(len(rows)):
            for column in range(len(columns)):
                value = auroc_RC[row, column]
                color = "white" if value > DARK_FROM else INK
                text = "n/a" if np.isnan(value) else share(float(value))
                axes.text(column, row - 0.1, text, ha="center", va="center", color=color, fontweight="bold")
                axes.text(column, row + 0.24, notes[row][column], ha="center", va="center", color=color, fontsize=7)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.set(title=title, xlabel="tested on", ylabel="trained on")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return png(drawing)
