"""Display windows of HU on a grid of 1 mm, averaged over equal parts of each axis: what the published networks see.

Windows come before averaging, so they can't be left to the device: a voxel that is half bone and half air is gray in
the mean of its windows, and white in the window of its mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from fmct.data.fmhct_banded import Array, Banded

KEPT_MATRICES = 64


def windowed_averages(hu: Array, windows_hu: Sequence[tuple[float, float]], parts: int) -> Array:
    """Scale HU into windows, then average each axis down (or up) to `parts`.

    Clipping can't be exchanged with averaging; scaling can, and is done last, on less.

    Args:
        hu: (X, Y, Z), in any memory order.
        windows_hu: center and width of each window.
        parts: of each axis.

    Returns:
        (W, parts, parts, parts) float32 in [0, 1], axes as in `hu`.
    """
    order = sorted(range(3), key=lambda axis: -hu.strides[axis])
    planes = hu.transpose(order)
    slow, middle, fast = (averaging_matrix(voxels, parts) for voxels in planes.shape)
    clipped = np.empty(planes.shape[1:], np.float32)
    along_middle = np.empty((parts, planes.shape[2]), np.float32)
    averaged = np.empty((len(planes), parts, parts), np.float32)
    averages = np.empty((len(windows_hu), parts, parts, parts), np.float32)
    for (center, width), average in zip(windows_hu, averages, strict=True):
        low, high = np.float32(center - width / 2), np.float32(center + width / 2)
        for plane, small in zip(planes, averaged, strict=True):
            np.clip(plane, low, high, out=clipped)
            fast.along_rows(middle.along_columns(clipped, along_middle), small)
        slow.along_columns(averaged.reshape(len(planes), -1), average.reshape(parts, -1))
        average -= low
        average /= np.float32(width)
    np.clip(averages, 0, 1, out=averages)
    return averages.transpose(0, *(1 + np.argsort(order)))


@lru_cache(maxsize=KEPT_MATRICES)
def averaging_matrix(voxels: int, parts: int) -> Banded:
    """Return the matrix of means over `parts` parts of an axis; parts share the voxels that they cut through.

    That is PyTorch's adaptive average pooling, which MONAI's `Resize` calls `area`.
    """
    starts = np.arange(parts) * voxels // parts
    ends = -(-(np.arange(parts) + 1) * voxels // parts)
    index = np.arange(voxels)
    inside = (index >= starts[:, None]) & (index < ends[:, None])
    return Banded.of(inside / (ends - starts)[:, None])
