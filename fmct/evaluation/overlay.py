"""Maps over a scan: three planes through a map's maximum in the head, over the brain window, with a scale.

Nothing is laid over air. What a map says of air is in its NIfTI file.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import NDArray
from scipy import ndimage

from fmct.data.volumes import Volume
from fmct.evaluation.figures import figure, png
from fmct.evaluation.montage import PANEL_IN, VIEWS, brain_window, letter_edges, slices_through
from fmct.views.foreground import FOREGROUND_HU

COLORMAP = "inferno"
OPACITY = 0.65
"""At the map's maximum; where it is 0 the scan shows unchanged."""
GAP_IN, TITLE_IN, SCALE_IN, SCALE_WIDTH_IN = 0.06, 0.3, 0.7, 0.14

Picture = NDArray[np.float64]
Mask = NDArray[np.bool_]


def overlay(volume: Volume, maps: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Draw maps over a scan under one another, axial, coronal and sagittal plane each.

    Args:
        volume: the scan.
        maps: by title: (Z, Y, X) not negative, on the volume's voxels; or (3, Z, Y, X) colors in [0, 1].

    Returns:
        A PNG picture.
    """
    gray, head = seen(volume)
    x_mm, y_mm, z_mm = volume.spacing_xyz_mm
    aspects = {"axial": y_mm / x_mm, "coronal": z_mm / x_mm, "sagittal": z_mm / y_mm}
    row_in = PANEL_IN + TITLE_IN + GAP_IN
    width, height = 3 * (PANEL_IN + GAP_IN) + SCALE_IN, len(maps) * row_in
    with figure(width, height) as drawing:
        drawing.set_layout_engine("none")  # places are known, and finding them takes longer than all else
        drawing.set_facecolor("black")
        for row, (title, values) in enumerate(maps.items()):
            bottom = height - (row + 1) * row_in + GAP_IN
            most = float(np.where(head, values, 0).max())
            place_zyx = middle_of(np.where(head, values, 0) if values.ndim == 3 else values.any(0) & head)
            colored = slices_through(np.moveaxis(values, 0, -1) if values.ndim == 4 else values, place_zyx)
            plain, inside = slices_through(gray, place_zyx), slices_through(head, place_zyx)
            for column, view in enumerate(VIEWS):
                left = column * (PANEL_IN + GAP_IN)
                axes = drawing.add_axes((left / width, bottom / height, PANEL_IN / width, PANEL_IN / height))
                picture = painted(plain[view], colored[view], inside[view], most)
                axes.imshow(picture, aspect=aspects[view], interpolation="nearest")
                axes.axis("off")
                letter_edges(axes, view)
                if not column:
                    axes.text(0, 1.05, title, color="white", fontsize=9, fontweight="bold", transform=axes.transAxes)
            if values.ndim == 3:
                place = (width - SCALE_IN) / width, bottom / height, SCALE_WIDTH_IN / width, PANEL_IN / height
                axes = drawing.add_axes(place)
                bar = drawing.colorbar(ScalarMappable(Normalize(0, most or 1.0), COLORMAP), cax=axes, format="%.1e")
                bar.ax.tick_params(colors="white", labelsize=7)
        return png(drawing)


def seen(volume: Volume) -> tuple[Picture, Mask]:
    """Return a scan as (Z, Y, X) in [0, 1], and where it isn't air.

    HU are shown in the brain window; of a volume of windows the first is, and air is what is 0 in all of them.
    """
    if volume.voxels.ndim == 3:
        return brain_window(volume.voxels), filled(np.asarray(volume.voxels > FOREGROUND_HU))
    return volume.voxels[0].astype(np.float64), filled(np.asarray(volume.voxels.any(0)))


def filled(mask: Mask) -> Mask:
    """Fill a mask's cavities; an empty one stands for everything."""
    whole: Mask = np.asarray(ndimage.binary_fill_holes(mask)) if mask.any() else np.ones_like(mask)
    return whole


def middle_of(values: NDArray[np.float32] | Mask) -> tuple[int, int, int]:
    """Return the voxel to cut through: a map's maximum, the middle of a mask."""
    if values.dtype != bool:
        z, y, x = np.unravel_index(int(values.argmax()), values.shape)
    else:
        places = np.argwhere(values)
        z, y, x = places.mean(0).round() if len(places) else np.array(values.shape) // 2
    return int(z), int(y), int(x)


def painted(gray: Picture, values: NDArray[np.floating], head: Mask, most: float) -> Picture:
    """Lay a slice of a map over one of the scan.

    Args:
        gray: (rows, columns) in [0, 1].
        values: (rows, columns), or (rows, columns, 3) colors, which are laid where they aren't 0.
        head: (rows, columns) where anything is laid.
        most: what has the brightest color.

    Returns:
        (rows, columns, 3) in [0, 1].
    """
    if values.ndim == 3:
        share, colors = values.any(-1) * OPACITY, values
    else:
        relative = np.asarray(values) / (most or 1.0)
        share, colors = np.clip(relative, 0, 1) * OPACITY, mpl.colormaps[COLORMAP](relative)[..., :3]
    share = np.where(head, share, 0)[..., None]
    mixed: Picture = gray[..., None] * (1 - share) + colors * share
    return mixed
