"""Where in a volume the head is, found on the device, without waiting for it.

B scans, Z, Y, X voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fmct.views.foreground import FOREGROUND_HU


def head_box(volumes: Tensor) -> Tensor:
    """Find the box of what is above `FOREGROUND_HU`.

    Args:
        volumes: (B, 1, Z, Y, X) int16 or float32, Hounsfield units.

    Returns:
        (B, 3, 2) float32: along z, y and x, from where to where, the volume running from -1 to 1; the whole volume
        where nothing is above.
    """
    along_x = volumes.amax((1, 2))  # over z: (B, Y, X)
    along_z = volumes.flatten(3).amax(3).amax(1)  # (B, Z)
    return torch.stack([extent(line) for line in (along_z, along_x.amax(2), along_x.amax(1))], 1)


def extent(line: Tensor) -> Tensor:
    """Return from where to where lines (B, N) are above `FOREGROUND_HU`: (B, 2) float32 in [-1, 1]."""
    n = line.shape[1]
    above = line > FOREGROUND_HU
    above = above | ~above.any(1, keepdim=True)
    first = above.int().argmax(1)
    after_last = n - above.flip(1).int().argmax(1)
    return torch.stack([first, after_last], 1).float() * (2 / n) - 1
