"""Which patches of a view show something: the others are air, and arithmetic on them teaches nothing.

B scans, N patches.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

FOREGROUND_HU = -700.0
"""A patch is foreground when any voxel is above this: air, with its noise, and the padding are below, fat is above."""


def foreground_patches(view: Tensor, patch_zyx: tuple[int, int, int], threshold: float = FOREGROUND_HU) -> Tensor:
    """Mark the patches in which any voxel is above a threshold.

    Args:
        view: (B, 1, Z, Y, X) float32, Hounsfield units.
        patch_zyx: voxels of a patch along each axis; they divide the view.
        threshold: in the view's units.

    Returns:
        (B, N) bool, patches in row-major order. A view with fewer than two such patches has them all marked: of one
        nothing could be hidden.
    """
    marked_BN = F.max_pool3d(view, patch_zyx).flatten(1) > threshold
    return marked_BN | (marked_BN.sum(1, keepdim=True) < 2)
