"""The skin of a head as seen from outside, to tell whether a face is left.

A ray per pixel goes straight from the front to the first voxel that isn't air; brightness follows the surface's slope
and, a little, its depth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmct.quality.panels import PANEL_PIXELS, Picture, panel, sheet
from fmct.quality.windows import Gray

SKIN_HU = -300
TURNS_DEG = (0.0, 35.0, -70.0)
"""From the front, and turned about the body's axis as far as a portrait is, and nearly to a profile."""
LIGHT = np.array([0.35, 0.45, 0.82]) / np.linalg.norm([0.35, 0.45, 0.82])
"""From the viewer's upper right: across, up, toward the viewer."""
FADING_MM = 90.0
DEPTH_SHARE = 0.45


def surface_picture(hu: NDArray[np.int16], spacing_mm: float, scan_id: str) -> Picture:
    """Draw the surface from the front, turned half and nearly to a profile.

    Args:
        hu: (Z, Y, X) HU, indices increasing toward superior, anterior, right.
        spacing_mm: distance of voxel centers.
        scan_id: for the description.
    """
    views = [shaded(depth_mm(turned(hu, turn), spacing_mm), spacing_mm) for turn in TURNS_DEG]
    row = [panel(view, PANEL_PIXELS / max(view.shape)) for view in views]
    return Picture.of(sheet([row]), f"Surface of scan {scan_id} from the front and turned to its side")


def turned(hu: NDArray[np.int16], turn_deg: float) -> NDArray[np.int16]:
    """Return the volume turned about the body's axis; the grid stays, and air comes in at the corners."""
    if not turn_deg:
        return hu
    rotated: NDArray[np.int16] = ndimage.rotate(hu, turn_deg, axes=(1, 2), reshape=False, order=1, cval=int(hu.min()))
    return rotated


def depth_mm(hu: NDArray[np.int16], spacing_mm: float) -> NDArray[np.float64]:
    """Return how far the surface is from the front of the volume.

    Args:
        hu: (Z, Y, X), indices increasing toward superior, anterior, right.
        spacing_mm: distance of voxel centers.

    Returns:
        (Z, X), between voxels where HU pass `SKIN_HU`; NaN where a ray meets nothing.
    """
    facing = hu[:, ::-1]
    solid = facing > SKIN_HU
    first = solid.argmax(axis=1)
    z, x = np.indices(first.shape)
    before = facing[z, np.maximum(first - 1, 0), x].astype(np.float64)
    at = facing[z, first, x].astype(np.float64)
    step = np.where(first > 0, (SKIN_HU - before) / np.maximum(at - before, 1.0), 1.0)
    return np.where(solid.any(axis=1), (first - 1 + step) * spacing_mm, np.nan)


def shaded(depth: NDArray[np.float64], spacing_mm: float) -> Gray:
    """Return a picture of a surface, superior up and the patient's right on the left; black where there is none.

    Args:
        depth: (Z, X) mm from the viewer, NaN where there is nothing.
        spacing_mm: distance of its pixels.
    """
    nothing = np.isnan(depth)
    if nothing.all():
        return np.zeros(depth.shape, np.uint8)
    nearest, farthest = float(np.nanmin(depth)), float(np.nanmax(depth))
    surface = np.where(nothing, farthest, depth)
    up, across = np.gradient(surface, spacing_mm)
    facing = np.stack([across, up, np.ones_like(surface)])
    bright = np.clip(np.tensordot(LIGHT, facing / np.linalg.norm(facing, axis=0), axes=1), 0, 1)
    bright *= 1 - DEPTH_SHARE + DEPTH_SHARE * np.exp(-(surface - nearest) / FADING_MM)
    bright[nothing] = 0
    pixels: Gray = np.rint(255 * bright[::-1, ::-1]).astype(np.uint8)
    return pixels
