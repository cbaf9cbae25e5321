"""Signed distances of simple bodies, and how sharp a sampled edge may be.

Everything in a phantom is made of these: a distance in mm (negative inside) and the share of a voxel that lies inside.
Legend: N points; coordinates are (3, N) float32 in mm, rows x (right), y (anterior), z (superior).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Indices = NDArray[np.intp]
Vector = Sequence[float]


def share_inside(distance_mm: Array, edge_mm: float) -> Array:
    """Return the share of each voxel that lies inside a surface: partial volume, exact for a plane across the voxel.

    Args:
        distance_mm: (N,) signed distance of the voxel centers, negative inside.
        edge_mm: width of a voxel.

    Returns:
        (N,) float32 in [0, 1].
    """
    share = distance_mm * np.float32(-1.0 / edge_mm)
    share += np.float32(0.5)
    return np.clip(share, 0.0, 1.0, out=share)


def share_between(distance_mm: Array, low_mm: Array | float, high_mm: Array | float, edge_mm: float) -> Array:
    """Return the share of each voxel with a distance from `low_mm` to `high_mm`: a layer, however thin."""
    return share_inside(distance_mm - high_mm, edge_mm) - share_inside(distance_mm - low_mm, edge_mm)


def mix(hu: Array, value: Array | float, share: Array) -> None:
    """Replace a share of each voxel by another material, in place: `hu += share * (value - hu)`."""
    hu += share * (value - hu)


def smooth_min(a: Array, b: Array, radius_mm: float) -> Array:
    """Return the distance of a union whose seam is rounded (quadratic polynomial minimum)."""
    overlap = np.maximum(np.float32(radius_mm) - np.abs(a - b), np.float32(0.0))
    union: Array = np.minimum(a, b) - overlap * overlap * np.float32(0.25 / radius_mm)
    return union


def smooth_max(a: Array, b: Array, radius_mm: float) -> Array:
    """Return the distance of an intersection whose edge is rounded."""
    return -smooth_min(-a, -b, radius_mm)


def smooth_step(value: Array, low: float, high: float) -> Array:
    """Return 0 below `low`, 1 above `high` and a cubic with flat ends between."""
    t = np.clip((value - np.float32(low)) * np.float32(1.0 / (high - low)), 0.0, 1.0)
    step: Array = t * t * (np.float32(3.0) - np.float32(2.0) * t)
    return step


def transformed(matrix: Array, points_mm: Array) -> Array:
    """Return a (M, 3) matrix times (3, N) points: without BLAS, whose threads would fight over so little work."""
    product: Array = np.einsum("mi,in->mn", matrix, points_mm)
    return product


def mirrored(points_mm: Array) -> Array:
    """Return the points folded onto the right side, so that one body stands for a pair."""
    return np.stack([np.abs(points_mm[0]), points_mm[1], points_mm[2]])


def within(points_mm: Array, box_mm: tuple[Vector, Vector]) -> Indices:
    """Return the indices of the (3, N) points that lie between the lowest and the highest corner of a box."""
    inside = np.ones(points_mm.shape[1], np.bool_)
    for along, low, high in zip(points_mm, *box_mm, strict=True):
        inside &= (along > np.float32(low)) & (along < np.float32(high))
    return np.flatnonzero(inside)


def ellipsoid(points_mm: Array, center_mm: Vector, radii_mm: Vector) -> Array:
    """Return the distance to an ellipsoid, to first order (exact near its surface and for a sphere)."""
    (x, y, z), (a, b, c) = (p - np.float32(o) for p, o in zip(points_mm, center_mm, strict=True)), radii_mm
    x, y, z = x * np.float32(1 / a), y * np.float32(1 / b), z * np.float32(1 / c)
    level = np.sqrt(x * x + y * y + z * z) + np.float32(1e-4)
    x, y, z = x * np.float32(1 / a), y * np.float32(1 / b), z * np.float32(1 / c)
    slope = np.sqrt(x * x + y * y + z * z)
    # At the very center both vanish; there the surface is the shortest radius away.
    distance: Array = level * (level - np.float32(1.0)) / (slope + np.float32(1e-4 / min(radii_mm)))
    return distance


def capsule(points_mm: Array, start_mm: Vector, end_mm: Vector, radius_mm: float, end_radius_mm: float = 0.0) -> Array:
    """Return the distance to a rod with round ends; its radius goes linearly to `end_radius_mm` where that is given."""
    axis = np.subtract(end_mm, start_mm)
    x, y, z = (p - np.float32(o) for p, o in zip(points_mm, start_mm, strict=True))
    ux, uy, uz = (np.float32(u) for u in axis / float(axis @ axis))
    along = np.clip(x * ux + y * uy + z * uz, 0.0, 1.0)
    ax, ay, az = (np.float32(u) for u in axis)
    x, y, z = x - along * ax, y - along * ay, z - along * az
    radius = np.float32(radius_mm) + along * np.float32((end_radius_mm or radius_mm) - radius_mm)
    distance: Array = np.sqrt(x * x + y * y + z * z) - radius
    return distance


def box(points_mm: Array, center_mm: Vector, half_mm: Vector, rounding_mm: float = 2.0) -> Array:
    """Return the distance to a box with rounded edges (a lower bound outside its corners)."""
    dx, dy, dz = (
        np.abs(p - np.float32(o)) - np.float32(h) for p, o, h in zip(points_mm, center_mm, half_mm, strict=True)
    )
    return smooth_max(smooth_max(dx, dy, rounding_mm), dz, rounding_mm)
