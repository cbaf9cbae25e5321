"""What masked image modelling restores: voxels of a view, or means over small cubes of them, all or the telling ones.

B scans, C windows, N patches, P values of a patch: cubes x windows in (z, y, x, window) order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fmct.losses.reconstruction import patchify
from fmct.views.smoothing import blur


class Target(NamedTuple):
    """What is to be restored of a batch of views."""

    values_BNP: Tensor
    weight_BNP: Tensor | None
    """How much of each value's cube is scored, 0 to 1; None: everything."""


def unsaturated(x_BCZYX: Tensor) -> Tensor:
    """Mark the voxels that lie within the range of some window: (B, 1, Z, Y, X) float, 1 or 0.

    Where every window shows its lowest value, or every one its highest, all that could be predicted is that there is
    air, or bone. Between windows that don't meet lie voxels which are dark in one and bright in the other: these count.
    """
    dark, bright = (x_BCZYX <= 0).all(1, keepdim=True), (x_BCZYX >= 1).all(1, keepdim=True)
    return (~(dark | bright)).to(x_BCZYX.dtype)


def make_target(
    x_BCZYX: Tensor, patch_zyx: tuple[int, int, int], *, blur_voxels: float, pool_voxels: int, skip_saturated: bool
) -> Target:
    """Make what is to be restored of views.

    Args:
        x_BCZYX: (B, C, Z, Y, X) windows in [0, 1].
        patch_zyx: voxels of a patch along each axis, multiples of `pool_voxels`.
        blur_voxels: standard deviation of a Gaussian over the views; 0: none.
        pool_voxels: edge of the cubes whose means are restored; 1: single voxels.
        skip_saturated: leave out what `unsaturated` doesn't mark, from smoothing, from means and from the score.
    """
    kept = unsaturated(x_BCZYX) if skip_saturated else None
    target = x_BCZYX
    if blur_voxels:
        sigma = torch.full((len(target),), blur_voxels)
        target = blur(target, sigma) if kept is None else _mean_of_kept(blur(target * kept, sigma), blur(kept, sigma))
    weight = kept
    if pool_voxels > 1:
        if kept is None:
            target = F.avg_pool3d(target, pool_voxels)
        else:
            weight = F.avg_pool3d(kept, pool_voxels)
            target = _mean_of_kept(F.avg_pool3d(target * kept, pool_voxels), weight)
    sz, sy, sx = (side // pool_voxels for side in patch_zyx)
    values_BNP = patchify(target, (sz, sy, sx))
    if weight is None:
        return Target(values_BNP, None)
    return Target(values_BNP, patchify(weight, (sz, sy, sx)).repeat_interleave(x_BCZYX.shape[1], -1))


def spread(values_BNP: Tensor, patch_zyx: tuple[int, int, int], pool_voxels: int) -> Tensor:
    """Give every voxel of a patch the value of its cube: the inverse of pooling, for pictures.

    Args:
        values_BNP: (B, N, P).
        patch_zyx: voxels of a patch along each axis.
        pool_voxels: edge of the cubes.
    """
    if pool_voxels == 1:
        return values_BNP
    batch, patches, _ = values_BNP.shape
    cubes = values_BNP.reshape(batch, patches, *(side // pool_voxels for side in patch_zyx), -1)
    for axis in (2, 3, 4):
        cubes = cubes.repeat_interleave(pool_voxels, axis)
    return cubes.reshape(batch, patches, -1)


def _mean_of_kept(total: Tensor, share: Tensor) -> Tensor:
    return total / share.clamp(min=1e-6)
