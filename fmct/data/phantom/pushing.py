"""How tissue gives way to a body that grows in it: outward from its center, held by the skull and by the midline."""

from __future__ import annotations

import numpy as np

from fmct.data.phantom.blob import Blob
from fmct.data.phantom.shapes import Array, smooth_step

REACH = 2.2  # radii of the body over which the push fades
HELD_MM = (1.0, 14.0)  # from the midline and from the skull: where nothing moves, and from which all moves freely


def pushed_apart(blob: Blob, points_mm: Array, depth_mm: Array, room: float) -> Array | None:
    """Return the displacement around a body, (3, N) mm, or None where it reaches none of the points.

    A ball of the body's volume swells evenly until `room` of that volume is new, in an incompressible medium: a shell
    of radius d came from one of radius cbrt(d^3 - room min(d, r)^3). It fades as exp(-(d / 2.2 r)^2).

    Args:
        blob: the body, on one side of the midline.
        points_mm: (3, N) in the head's frame.
        depth_mm: (N,) their depth under the inner table.
        room: share of the body's volume for which tissue had to make room; the rest replaced it.
    """
    radius = np.float32(blob.radius_mm)
    near = blob.near(points_mm, margin_mm=3.0 * blob.radius_mm)
    if not near.size:
        return None
    side = np.float32(np.sign(blob.center_mm[0]))
    outward = points_mm[:, near] - np.array(blob.center_mm, np.float32)[:, None]
    distance = np.maximum(np.sqrt((outward**2).sum(0)), np.float32(1.0))
    fading = np.exp(-((distance / (np.float32(REACH) * radius)) ** 2))
    before = np.cbrt(distance**3 - np.float32(room) * fading * np.minimum(distance, radius) ** 3)
    free = smooth_step(side * points_mm[0, near], *HELD_MM) * smooth_step(depth_mm[near], *HELD_MM)
    moved = np.zeros_like(points_mm)
    moved[:, near] = outward * ((distance - before) / distance * free)
    return moved
