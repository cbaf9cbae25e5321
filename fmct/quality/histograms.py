"""Histograms of what was measured, one figure per measure, stacked by site in the same colors everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fmct.evaluation.figures import MUTED, PALETTE, figure, png, single_axes
from fmct.quality.measures import HISTOGRAMS
from fmct.quality.outliers import Typical

Values = NDArray[np.floating[Any]]

FEWEST_BINS, MOST_BINS = 10, 40
NARROWEST = 10
"""Into how many bins what hardly counts as a difference is divided at most."""
WIDTH_IN, HEIGHT_IN = 3.4, 2.1
REACH = 6.0
OTHER_SITES = "other sites"
NO_SITE = "no site given"


@dataclass(frozen=True)
class Histogram:
    """A figure and its words.

    Attributes:
        png: the picture.
        title: of the measure.
        caption: what is usual, and what the axis doesn't show.
    """

    png: bytes
    title: str
    caption: str


def site_colors(sites: pd.Series[str]) -> dict[str, str]:
    """Return a color for each site, the largest first; those beyond the palette share a gray one."""
    counts = sites.replace("", NO_SITE).value_counts()
    names = [str(name) for name in sorted(counts.index, key=lambda name: (-counts[name], name))]
    if names == [NO_SITE]:
        return {NO_SITE: PALETTE[0]}
    fits = len(names) <= len(PALETTE)
    colors = dict(zip(names[: len(PALETTE)], PALETTE, strict=False))
    return colors if fits else {**colors, OTHER_SITES: MUTED}


def histograms(frame: pd.DataFrame, typical: Sequence[Typical], colors: dict[str, str]) -> list[Histogram]:
    """Draw the measures of `HISTOGRAMS` that any scan has.

    Args:
        frame: of `survey`.
        typical: of `typical_values`.
        colors: of `site_colors`.
    """
    usual = {one.measure.name: one for one in typical}
    sites = frame["site"].replace("", NO_SITE)
    sites = sites.where(sites.isin(list(colors)), OTHER_SITES)
    return [histogram(frame[name], sites, usual[name], colors) for name in HISTOGRAMS if name in usual]


def histogram(values: pd.Series[float], sites: pd.Series[str], usual: Typical, colors: dict[str, str]) -> Histogram:
    """Draw one measure; what lies far beyond the usual isn't on the axis but in the caption."""
    measure = usual.measure
    spread = max(usual.spread, measure.slack)
    near = values[(values - usual.median).abs() <= REACH * spread]
    scaled = near * measure.scale
    margin = measure.slack * measure.scale
    edges = bins(scaled.to_numpy(np.float64), margin)
    parts = [scaled[sites.loc[near.index] == site].to_numpy(np.float64) for site in colors]
    with figure(WIDTH_IN, HEIGHT_IN) as drawing:
        axes = single_axes(drawing)
        axes.hist(parts, bins=edges.tolist(), stacked=True, color=list(colors.values()), linewidth=0)
        axes.set_xlim(min(edges[0], scaled.median() - margin), max(edges[-1], scaled.median() + margin))
        axes.set_title(measure.title)
        axes.set_xlabel(measure.unit.strip())
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(visible=False, axis="x")
        picture = png(drawing)
    notes = [f"{usual.text}"]
    beyond = values.dropna().drop(near.index)
    if len(beyond):
        ends = [measure.text(float(end)) for end in (beyond.min(), beyond.max())]
        notes.append(f"{len(beyond):,} beyond this axis ({ends[0]}{f' to {ends[1]}' if ends[0] != ends[1] else ''})")
    if values.isna().any():
        notes.append(f"{int(values.isna().sum()):,} without a value")
    return Histogram(picture, measure.title, "; ".join(notes))


def bins(values: Values, slack: float) -> Values:
    """Return the edges of bins: fewer for few values, none too narrow to be seen, each whole steps of the values wide.

    Otherwise values in steps, such as a height in voxels, would leave bins empty that mean nothing.

    Args:
        values: (N,) at least one.
        slack: differences that are small against it are none.
    """
    distinct = np.unique(values)
    low, high = float(distinct[0]), float(distinct[-1])
    finest = min(float(np.diff(distinct).min()), slack) if distinct.size > 1 else slack / NARROWEST
    most = min(MOST_BINS, max(FEWEST_BINS, 2 * math.isqrt(values.size)))
    step = finest * math.ceil(max((high - low) / most, slack / NARROWEST) / finest)
    first = low - finest / 2
    edges: Values = first + step * np.arange(math.floor((high - first) / step) + 2)
    return edges
