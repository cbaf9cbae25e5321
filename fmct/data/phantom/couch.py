"""What the head lies in: a head rest on a curved couch, both of carbon fiber around foam; or a pillow."""

from __future__ import annotations

import numpy as np

from fmct.data.phantom.effects import Rest
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.shapes import Array, share_between, share_inside, smooth_max

AIR_HU, SHELL_HU, FOAM_HU, COUCH_SKIN_HU = -1000.0, 180.0, -930.0, -150.0
REST_SHELL_MM, REST_FOAM_MM = 2.4, 7.0
TRAY_ROUNDING_MM, TRAY_SLOPE = 110.0, 0.18  # between floor and sides; how far these lean outward
PILLOW_HU, PILLOW_COVER_HU, PILLOW_MM = -960.0, -500.0, (88.0, 30.0)  # half its width, its thickness in the middle
COUCH_SKIN_MM, COUCH_THICKNESS_MM, COUCH_CURVE_MM = 2.0, 28.0, 900.0


def couch_hu(head: HeadParameters, x_mm: Array, y_mm: Array, edge_mm: float, rest: Rest = "cup") -> Array:
    """Return rest and couch, the same in every axial plane.

    The rest follows the head's size and height; it stays centered on the couch when the head doesn't.

    Args:
        head: who lies on it.
        x_mm: (X,) right, patient coordinates.
        y_mm: (Y,) anterior.
        edge_mm: width of a voxel.
        rest: a round cup, a tray with leaning sides, or a pillow on the bare couch.

    Returns:
        (Y, X) float32 HU.
    """
    x, y = np.meshgrid(x_mm, y_mm)
    width, length, _ = head.scale
    middle = head.pose.shift_mm[1] - 17.0 * length
    across, along = np.float32(101.0 * width), np.float32(112.0 * length)
    hu = np.full(x.shape, AIR_HU, np.float32)
    if rest == "pillow":
        _paint_pillow(hu, x, y - np.float32(middle - along), edge_mm)
    else:
        if rest == "cup":
            relative = np.sqrt((x / across) ** 2 + ((y - middle) / along) ** 2)
            slope = np.sqrt((x / across**2) ** 2 + ((y - middle) / along**2) ** 2)
            wall: Array = (relative * (relative - 1.0) / np.maximum(slope, np.float32(1e-5))).astype(np.float32)
        else:
            floor = np.float32(middle - along) - y
            side = np.abs(x) - across + np.float32(TRAY_SLOPE) * (np.float32(middle) - y)
            wall = smooth_max(floor, side * np.float32(1.0 / np.hypot(1.0, TRAY_SLOPE)), TRAY_ROUNDING_MM)
        _paint_rest(hu, wall, y - np.float32(middle - 0.15 * along), edge_mm)
    top = np.float32(middle - along - REST_SHELL_MM - 6.0) + x * x / np.float32(COUCH_CURVE_MM)
    under = (top - y) * np.float32(0.95)
    core = share_between(under, 0.0, COUCH_THICKNESS_MM, edge_mm)
    hu += core * (np.float32(FOAM_HU) - hu)
    skin = share_between(under, 0.0, COUCH_SKIN_MM, edge_mm)
    skin += share_between(under, COUCH_THICKNESS_MM - COUCH_SKIN_MM, COUCH_THICKNESS_MM, edge_mm)
    return hu + skin * (np.float32(COUCH_SKIN_HU) - hu)


def _paint_rest(hu: Array, wall: Array, open_above: Array, edge_mm: float) -> None:
    """Lay shell and foam around a wall (distances, negative inside) that ends above."""
    foam = share_inside(
        smooth_max(np.abs(wall + np.float32(REST_FOAM_MM / 2)) - np.float32(REST_FOAM_MM / 2), open_above, 2.0), edge_mm
    )
    hu += foam * np.float32(FOAM_HU - AIR_HU)
    shell = share_between(wall, 0.0, REST_SHELL_MM, edge_mm) * share_inside(open_above, edge_mm)
    hu += shell * (np.float32(SHELL_HU) - hu)


def _paint_pillow(hu: Array, x: Array, above: Array, edge_mm: float) -> None:
    """Lay a flat pillow whose top is a hollow for the head; `above` is the height over the head's lowest point."""
    half_width, thickness = PILLOW_MM
    top = above - np.float32(0.9) * x * x / np.float32(half_width)
    inside = smooth_max(smooth_max(top, np.abs(x) - np.float32(half_width), 12.0), -above - np.float32(thickness), 8.0)
    hu += share_inside(inside, edge_mm) * np.float32(PILLOW_HU - AIR_HU)
    cover = share_between(inside, -1.2, 0.0, edge_mm)
    hu += cover * (np.float32(PILLOW_COVER_HU) - hu)
