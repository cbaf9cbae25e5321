"""The MAE loss: squared error on hidden patches (He et al. 2022, arXiv 2111.06377, section 3, "reconstruction target").

Shapes: B scans, C channels, N patches in row-major order, P voxels x channels of a patch in (z, y, x, channel) order.
"""

from __future__ import annotations

import math

from torch import Tensor

from fmct.console.errors import UsageError
from fmct.models.positions import patch_grid

NORMALIZE_EPS = 1e-6


def patchify(x_BCZYX: Tensor, patch_zyx: tuple[int, int, int]) -> Tensor:
    """Cut volumes into patches.

    Args:
        x_BCZYX: (B, C, Z, Y, X).
        patch_zyx: voxels of a patch along each axis.

    Returns:
        (B, N, P), of the same type.

    Raises:
        UsageError: when the patches don't divide the volume.
    """
    batch, channels, z, y, x = x_BCZYX.shape
    (pz, py, px), (gz, gy, gx) = patch_zyx, patch_grid((z, y, x), patch_zyx)
    blocks = x_BCZYX.reshape(batch, channels, gz, pz, gy, py, gx, px).permute(0, 2, 4, 6, 3, 5, 7, 1)
    return blocks.reshape(batch, gz * gy * gx, pz * py * px * channels)


def unpatchify(patches_BNP: Tensor, patch_zyx: tuple[int, int, int], shape_zyx: tuple[int, int, int]) -> Tensor:
    """Put patches back together: the inverse of `patchify`.

    Args:
        patches_BNP: (B, N, P).
        patch_zyx: voxels of a patch along each axis.
        shape_zyx: the volume's size.

    Returns:
        (B, C, Z, Y, X), of the same type.

    Raises:
        UsageError: when the patches don't divide the volume, or there are more or fewer than fill it.
    """
    (pz, py, px), (gz, gy, gx) = patch_zyx, patch_grid(shape_zyx, patch_zyx)
    batch, patches, values = patches_BNP.shape
    if patches != gz * gy * gx or values % math.prod(patch_zyx):
        raise UsageError(
            f"{patches} patches of {values} values don't fill a volume of {shape_zyx} in patches of {patch_zyx}",
            "the patches to put together",
            f"a volume of {shape_zyx} takes {gz * gy * gx} patches of a multiple of {math.prod(patch_zyx)} values",
        )
    blocks = patches_BNP.reshape(batch, gz, gy, gx, pz, py, px, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
    return blocks.reshape(batch, -1, *shape_zyx)


def reconstruction_loss(
    prediction_BNP: Tensor, target_BNP: Tensor, mask_BN: Tensor, normalize: bool, weight_BNP: Tensor | None = None
) -> Tensor:
    """Average the squared error over each scan's hidden patches, then over scans.

    So where scans have different numbers of them, each scan weighs as much, and the mean over processes is that of all.

    Args:
        prediction_BNP: (B, N, P).
        target_BNP: (B, N, P) patches of the input.
        mask_BN: (B, N), 1 where a patch was hidden, 0 where it was seen; at least one 1 of each scan.
        normalize: bring every target patch to mean 0 and (unbiased) variance 1 first.
        weight_BNP: (B, N, P) from 0 to 1, how much each value counts, in the error and in mean and variance; a scan of
            whose hidden patches nothing counts adds 0. None: all count.

    Returns:
        Scalar float32, whatever the prediction's precision.
    """
    target_BNP = target_BNP.float()
    if normalize:
        mean_BN1, deviation_BN1 = patch_statistics(target_BNP, weight_BNP)
        target_BNP = (target_BNP - mean_BN1) / deviation_BN1
    error_BNP = (prediction_BNP.float() - target_BNP).square()
    if weight_BNP is None:
        return ((error_BNP.mean(-1) * mask_BN).sum(1) / mask_BN.sum(1)).mean()
    counted_B = (weight_BNP.sum(-1) * mask_BN).sum(1)
    return (((error_BNP * weight_BNP).sum(-1) * mask_BN).sum(1) / counted_B.clamp(min=1)).mean()


def patch_statistics(target_BNP: Tensor, weight_BNP: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return each patch's mean and (unbiased) standard deviation, (B, N, 1) each, that normalized targets lack."""
    if weight_BNP is None:
        mean_BN1, variance_BN1 = target_BNP.mean(-1, keepdim=True), target_BNP.var(-1, keepdim=True)
    else:
        counted_BN1 = weight_BNP.sum(-1, keepdim=True)
        mean_BN1 = (target_BNP * weight_BNP).sum(-1, keepdim=True) / counted_BN1.clamp(min=1)
        squares_BN1 = ((target_BNP - mean_BN1).square() * weight_BNP).sum(-1, keepdim=True)
        variance_BN1 = squares_BN1 / (counted_BN1 - 1).clamp(min=1)
    return mean_BN1, (variance_BN1 + NORMALIZE_EPS).sqrt()
