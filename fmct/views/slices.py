"""Laying slices of a volume out as a radiologist sees them."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_WINDOWS_APART = 3
"""More windows than these are narrow ones side by side, and their mean is the wide one that they make up."""


def in_one_window(x: Tensor) -> Tensor:
    """Return what a picture shows of several windows: the first, or the mean where there are more than three.

    Args:
        x: (..., C, Z, Y, X) in [0, 1].

    Returns:
        (..., Z, Y, X) in [0, 1].
    """
    return x.select(-4, 0) if x.shape[-4] <= MOST_WINDOWS_APART else x.mean(-4)


def middle_slices(volume: Tensor, count: int = 3) -> Tensor:
    """Lay axial slices from the middle of a volume side by side.

    Args:
        volume: (Z, Y, X) in [0, 1], RAS.
        count: how many slices.

    Returns:
        (Y, count · X): anterior up, the patient's right on the left.
    """
    rows = torch.linspace(len(volume) * 0.3, len(volume) * 0.7, count).long()
    return torch.cat([volume[z].flip(0).flip(1) for z in rows], 1)
