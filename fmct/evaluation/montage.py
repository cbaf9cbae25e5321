"""Montages for looking at scans: three middle slices each, in the brain window, as radiologists hold them.

Volumes are (Z, Y, X) with indices that increase toward superior, anterior and the patient's right (RAS). Pictures
follow the radiological convention: the patient's right on the left of the picture, superior up in coronal and sagittal
views, anterior up in axial and on the left in sagittal ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fmct.evaluation.figures import figure, png

BRAIN_LEVEL_HU, BRAIN_WIDTH_HU = 40.0, 80.0
PANEL_IN = 1.9
VIEWS = ("axial", "coronal", "sagittal")
EDGES = {"axial": ("R", "L", "A"), "coronal": ("R", "L", "S"), "sagittal": ("A", "P", "S")}


def brain_window(hu: NDArray[Any]) -> NDArray[np.float64]:
    """Scale HU to [0, 1] in the brain window (level 40, width 80), clipped."""
    bottom = BRAIN_LEVEL_HU - BRAIN_WIDTH_HU / 2
    scaled: NDArray[np.float64] = np.clip((hu.astype(np.float64) - bottom) / BRAIN_WIDTH_HU, 0.0, 1.0)
    return scaled


def middle_slices(volume: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the middle axial, coronal and sagittal slice as pictures; see `slices_through`."""
    z, y, x = (length // 2 for length in volume.shape)
    return slices_through(volume, (z, y, x))


def slices_through(volume: NDArray[Any], place_zyx: tuple[int, int, int]) -> dict[str, NDArray[Any]]:
    """Return the axial, coronal and sagittal slice through a voxel as pictures: rows downward, columns rightward.

    Args:
        volume: (Z, Y, X), indices increasing toward superior, anterior, right; maybe with more axes behind, of colors.
        place_zyx: the voxel.

    Returns:
        axial (Y, X), anterior up and the patient's right on the left; coronal (Z, X), superior up and right on the
        left; sagittal (Z, Y), superior up and anterior on the left.
    """
    z, y, x = place_zyx
    return {
        "axial": volume[z, ::-1, ::-1],
        "coronal": volume[::-1, y, ::-1],
        "sagittal": volume[::-1, ::-1, x],
    }


def letter_edges(axes: Axes, view: str) -> None:
    """Write on a picture which side of the patient its edges are."""
    left, right, top = EDGES[view]
    for text, x, y, across, along in (
        (left, 0.02, 0.5, "left", "center"),
        (right, 0.98, 0.5, "right", "center"),
        (top, 0.5, 0.98, "center", "top"),
    ):
        place: dict[str, Any] = {"ha": across, "va": along, "transform": axes.transAxes}
        axes.text(x, y, text, color="#ffd54a", fontsize=9, fontweight="bold", **place)


def montage(volumes: Mapping[str, NDArray[Any]], titles: bool = True) -> bytes:
    """Draw scans under one another, three views each.

    Args:
        volumes: (Z, Y, X) HU by title, isotropic voxels.
        titles: whether to write the title over each row.

    Returns:
        A PNG picture.

    Raises:
        ValueError: when there is no volume, or one isn't three-dimensional.
    """
    if not volumes or any(volume.ndim != 3 for volume in volumes.values()):
        raise ValueError("a montage needs at least one volume, each (Z, Y, X)")
    height = len(volumes) * (PANEL_IN + (0.3 if titles else 0.0))
    with figure(3 * PANEL_IN, height) as drawing:
        drawing.set_facecolor("black")
        drawing.get_layout_engine().set(w_pad=0.06, h_pad=0.02, wspace=0.02, hspace=0.0)  # type: ignore[union-attr, call-arg]
        grid = drawing.subplots(len(volumes), len(VIEWS), squeeze=False)
        for row, (title, volume) in zip(grid, volumes.items(), strict=True):
            slices = middle_slices(volume)
            for axes, view in zip(row, VIEWS, strict=True):
                axes.imshow(brain_window(slices[view]), cmap="gray", vmin=0, vmax=1)
                axes.axis("off")
                letter_edges(axes, view)
            if titles:
                row[0].set_title(title, color="white", fontsize=9, loc="left")
        return png(drawing)
