"""From voxels to tokens: one linear map for all patches.

Shapes: B scans, C channels, N patches, K kept patches, D width, P voxels x channels of a patch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmct.models.blocks import INIT_STD


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its kernel, computed as one matrix product, and for the wanted patches only."""

    def __init__(self, in_channels: int, width: int, patch_zyx: tuple[int, int, int]) -> None:
        super().__init__()
        self.patch_zyx = patch_zyx
        self.weight = nn.Parameter(torch.empty(width, in_channels, *patch_zyx))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.trunc_normal_(self.weight, std=INIT_STD)

    def forward(self, x_BCZYX: Tensor, keep_BK: Tensor | None = None) -> Tensor:
        """Embed all patches, (B, N, D), or the kept ones, (B, K, D); Z, Y and X are multiples of the patch."""
        batch, channels, *shape = x_BCZYX.shape
        (pz, py, px), (gz, gy, gx) = self.patch_zyx, (n // p for n, p in zip(shape, self.patch_zyx, strict=True))
        blocks = x_BCZYX.reshape(batch, channels, gz, pz, gy, py, gx, px).permute(0, 2, 4, 6, 1, 3, 5, 7)
        patches_BNP = blocks.reshape(batch, gz * gy * gx, channels * pz * py * px)
        if keep_BK is not None:
            patches_BNP = patches_BNP.take_along_dim(keep_BK[..., None], dim=1)
        return F.linear(patches_BNP, self.weight.flatten(1), self.bias)
