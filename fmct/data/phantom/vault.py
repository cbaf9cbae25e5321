"""Directions from the vault's center, and how far the vault is in each; right side, average head.

Azimuth is 0 lateral and positive toward the forehead, elevation above the horizontal plane, as extra-axial bleeds have
them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fmct.data.phantom.skull import VAULT_RADII_MM

Vector = NDArray[np.float64]


def outward(azimuth_deg: ArrayLike, elevation_deg: ArrayLike) -> Vector:
    """Return unit vectors, (3, ...) with the shape of the angles appended."""
    azimuth, elevation = np.deg2rad(azimuth_deg), np.deg2rad(elevation_deg)
    return np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])


def vault_mm(direction: Vector) -> Vector:
    """Return the distance from the center to the plain vault, an ellipsoid, along (3, ...) directions."""
    radii = np.array(VAULT_RADII_MM).reshape(3, *(1,) * (direction.ndim - 1))
    distance: Vector = 1.0 / np.sqrt(((direction / radii) ** 2).sum(0))
    return distance
