"""The box that MONAI's `CropForeground` crops to: what is above 0 HU after resampling.

A single voxel decides about each face, so a value that rounding could carry across 0 is computed once more, exactly as
SciPy does. That is rare, but for scans whose background was set to 0: there the ripple that splines make of a head's
outline decides, over dozens of voxels, and the published system kept nearly all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmct.data.fmhct_banded import Array
from fmct.data.fmhct_grid import SpacingGrid

UNSURE_HU = 0.1
"""Float32 and the cut responses of the filter can be wrong by as much, next to metal."""
REACH = 80
"""Over so many samples ripple falls below the smallest float32."""

Box = tuple[slice, ...]
Exact = Callable[[NDArray[np.intp]], Array]


def foreground_box(hu: Array, exact: Exact) -> Box | None:
    """Return the smallest box that holds all voxels above 0 HU, or None where there are none.

    Args:
        hu: (X, Y, Z), in any memory order.
        exact: gives the exact values (N,) of voxels (N, 3).
    """
    box = []
    for axis, profile in enumerate(highest(hu)):
        candidates = [int(k) for k in np.flatnonzero(profile > -UNSURE_HU)]
        above = (k for k in candidates if above_zero(hu, axis, k, profile[k], exact))
        first = next(above, None)
        if first is None:
            return None
        last = next(k for k in reversed(candidates) if k == first or above_zero(hu, axis, k, profile[k], exact))
        box.append(slice(first, last + 1))
    return tuple(box)


def highest(hu: Array) -> list[Array]:
    """Return the highest value of each plane across x, y and z, read in memory order."""
    order = sorted(range(3), key=lambda axis: -hu.strides[axis])
    planes = hu.transpose(order)
    across = np.empty(len(planes), np.float32)
    projection = planes[0].copy()
    for k, plane in enumerate(planes):
        np.maximum(projection, plane, out=projection)
        across[k] = plane.max()
    profiles = across, projection.max(axis=1), projection.max(axis=0)
    return [profiles[order.index(axis)] for axis in range(3)]


def above_zero(hu: Array, axis: int, index: int, maximum: float, exact: Exact) -> bool:
    """Tell whether a plane of voxels holds one above 0 HU."""
    if maximum > UNSURE_HU:
        return True
    unsure = np.argwhere(np.abs(hu.take(index, axis)) <= UNSURE_HU)
    return bool((exact(np.insert(unsure, axis, index, axis=1)) > 0).any())


def exact_values(values: NDArray[Any], grid: SpacingGrid) -> Exact:
    """Return the function that resamples single voxels as MONAI's `Spacing` does, in float64 by SciPy.

    Args:
        values: (X, Y, Z) of the scan.
        grid: what it is resampled onto.
    """

    def exact(voxels: NDArray[np.intp]) -> Array:
        places = voxels @ grid.to_scan[:3, :3].T + grid.to_scan[:3, 3]
        last = np.array(values.shape) - 1
        low = np.clip(np.floor(places.min(axis=0)).astype(int) - REACH, 0, last)
        high = np.clip(np.ceil(places.max(axis=0)).astype(int) + REACH, 0, last)
        part = values[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))].astype(np.float64)
        if (grid.to_scan == np.eye(4)).all():
            return np.asarray(part[tuple((voxels - low).T)], np.float32)
        exactly = ndimage.map_coordinates(part, (places - low).T, order=3, mode="nearest")
        return np.asarray(exactly, np.float32)

    return exact
