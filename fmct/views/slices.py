"""Laying slices of a volume out as a radiologist sees them."""

from __future__ import annotations

import torch
from torch import Tensor


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
