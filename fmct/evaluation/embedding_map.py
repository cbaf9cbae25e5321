"""A map of embeddings in two dimensions, colored by findings and, beside them, by site and scanner.

Where scans lie apart by scanner more than by finding, the features know where a scan was made, and a classifier may
lean on that. The map shows neighborhoods, not distances: what lies far apart in it needn't be so in the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from fmct.data.manifest import label_columns
from fmct.evaluation.figures import MUTED, PALETTE, figure, png

MOST_SCANS: Final = 2000
MOST_LABELS: Final = 4
MOST_GROUPS: Final = 6
FEWEST_SCANS: Final = 10
PANEL_IN: Final = 3.1
COLUMNS: Final = 3


def places_of(features: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Lay embeddings out in two dimensions (van der Maaten and Hinton 2008, t-SNE, begun at the principal components).

    Args:
        features: (N, D), N of at least 10.
        seed: the same seed gives the same map.

    Returns:
        (N, 2).
    """
    standardized = (features - features.mean(0)) / (features.std(0) + 1e-8)
    components = min(50, *standardized.shape)
    reduced = PCA(components, random_state=seed, svd_solver="full").fit_transform(standardized)
    perplexity = min(30.0, (len(features) - 1) / 3)
    places: NDArray[np.float64] = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return places


def embedding_figure(features: pd.DataFrame, scans: pd.DataFrame, seed: int = 0) -> tuple[bytes, int] | None:
    """Draw the map once per label, site and scanner.

    Args:
        features: embeddings by scan_id.
        scans: rows of manifests.
        seed: of the choice of scans, where there are more than 2,000, and of the layout.

    Returns:
        A PNG and the number of scans in it; None when fewer than ten scans are in both.
    """
    known = scans.drop_duplicates("scan_id").set_index("scan_id")
    known = known.loc[known.index.intersection(features.index)]
    if len(known) < FEWEST_SCANS:
        return None
    if len(known) > MOST_SCANS:
        known = known.sample(MOST_SCANS, random_state=seed)
    places = places_of(features.loc[known.index].to_numpy(np.float64), seed)
    labels = [column for column in label_columns(known) if {0, 1} <= set(known[column].dropna())]
    labels = sorted(labels, key=lambda column: -known[column].sum())[:MOST_LABELS]
    scanner = (
        known["manufacturer"].astype("string").fillna("") + " " + known["model"].astype("string").fillna("")
    ).str.strip()
    panels: list[tuple[str, pd.Series[str]]] = [
        (column.partition(":")[2], known[column].map({1: "present", 0: "absent"}).fillna("unknown"))
        for column in labels
    ]
    panels += [("site", known["site"].replace("", "unnamed")), ("scanner", scanner.replace("", "unnamed"))]
    rows = -(-len(panels) // COLUMNS)
    with figure(PANEL_IN * COLUMNS, (PANEL_IN + 0.5) * rows) as drawing:
        grid = drawing.subplots(rows, COLUMNS, squeeze=False).ravel()
        for axes, (title, groups) in zip(grid, panels, strict=False):
            draw_groups(axes, title, places, groups)
        for axes in grid[len(panels) :]:
            axes.axis("off")
        return png(drawing), len(known)


def draw_groups(axes: Axes, title: str, places: NDArray[np.float64], groups: pd.Series[str]) -> None:
    """Draw the map in the colors of some groups, the commonest of them by name and the rest together."""
    for name, color in group_colors(groups).items():
        chosen = (
            (groups == name).to_numpy() if name != "others" else ~groups.isin(list(group_colors(groups))).to_numpy()
        )
        axes.scatter(
            places[chosen, 0],
            places[chosen, 1],
            s=7,
            color=color,
            linewidths=0,
            alpha=0.75,
            label=f"{name} ({chosen.sum()})",
        )
    axes.set(title=title, xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, markerscale=2)


def group_colors(groups: pd.Series[str]) -> dict[str, str]:
    """Give the commonest groups colors; absent and unknown ones are gray, and drawn first."""
    counts = groups.value_counts()
    gray = [name for name in ("unknown", "absent") if name in counts]
    named: Sequence[str] = [str(name) for name in counts.index if name not in gray]
    colors = {name: MUTED if name == "absent" else "#c3ccd4" for name in gray}
    if len(named) > MOST_GROUPS:
        colors["others"] = "#c3ccd4"
    return colors | dict(zip(sorted(named[:MOST_GROUPS]), PALETTE[1:] + PALETTE[:1], strict=False))
