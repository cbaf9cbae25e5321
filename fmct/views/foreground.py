"""Which patches of a view show something: the others are air, and arithmetic on them teaches nothing.

B scans, N patches.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from fmct.models.positions import patch_grid

FOREGROUND_HU = -700.0
"""A patch is foreground when any voxel is above this: air, with its noise, and the padding are below, fat is above."""


class Foreground(NamedTuple):
    """Foreground patches of a batch of views, and how many each view has."""

    patches_BN: Tensor
    """(B, N) bool, on the device of the views."""
    counts: list[int]
    """B numbers of at least 2. Fetched from the device once per batch: lengths of sequences follow from them."""

    @classmethod
    def of(cls, patches_BN: Tensor) -> Foreground:
        """Count the patches of each view."""
        return cls(patches_BN, patches_BN.sum(1).tolist())


def foreground_patches(view: Tensor, patch_zyx: tuple[int, int, int], threshold: float = FOREGROUND_HU) -> Tensor:
    """Mark the patches in which any voxel is above a threshold.

    Args:
        view: (B, 1, Z, Y, X) float32, Hounsfield units.
        patch_zyx: voxels of a patch along each axis.
        threshold: in the view's units.

    Returns:
        (B, N) bool, patches in row-major order. A view with fewer than two such patches has them all marked: of one
        nothing could be hidden.

    Raises:
        UsageError: when the patches don't divide the view.
    """
    _, _, z, y, x = view.shape
    patch_grid((z, y, x), patch_zyx)
    marked_BN = F.max_pool3d(view, patch_zyx).flatten(1) > threshold
    return marked_BN | (marked_BN.sum(1, keepdim=True) < 2)
