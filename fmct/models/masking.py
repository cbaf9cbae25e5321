"""Random masking: which patches the encoder sees (He et al. 2022, arXiv 2111.06377, section 3).

Shapes: B scans, N patches, K kept patches. Noise is drawn apart from being applied, so that a mask can be repeated.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fmct.console.errors import UsageError


class Masking(NamedTuple):
    """Which patches are kept, and how to put a shuffled sequence (kept first, hidden after) back in order."""

    keep_BK: Tensor
    """(B, K) int64: indices of the patches that the encoder sees, in the order in which it sees them."""
    restore_BN: Tensor
    """(B, N) int64: where patch n stands in the shuffled sequence."""
    mask_BN: Tensor
    """(B, N) float32: 1 where a patch is hidden, 0 where it is seen."""


def draw_noise(batch: int, patches: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """Draw the noise whose order decides what is hidden.

    Args:
        batch: B.
        patches: N.
        generator: the source of randomness; on another device than `device`, the noise is drawn there and moved.
        device: where the noise is wanted.

    Returns:
        (B, N) float32, uniform in [0, 1).
    """
    return torch.rand(batch, patches, generator=generator, device=generator.device).to(device)


def random_keep(noise_BN: Tensor, mask_ratio: float) -> Masking:
    """Keep the patches of least noise: N · (1 - mask_ratio) of them, rounded down, but at least one.

    Args:
        noise_BN: (B, N) from `draw_noise`.
        mask_ratio: share of patches to hide, strictly between 0 and 1.

    Returns:
        The same number of kept patches for each scan.

    Raises:
        UsageError: for a ratio outside (0, 1), or a scan of a single patch, of which nothing can be hidden.
    """
    patches = noise_BN.shape[1]
    if not 0 < mask_ratio < 1:
        raise UsageError(f"mask ratio {mask_ratio} isn't between 0 and 1", "mask_ratio", "0.75 is usual")
    if patches < 2:
        raise UsageError("a scan of one patch can't be masked", "patch_voxels", "use smaller patches or a larger input")
    # 1e-6: 10 · (1 - 0.9) is 0.9999999999999998 in floating point and means 1
    kept = min(max(int(patches * (1 - mask_ratio) + 1e-6), 1), patches - 1)
    order_BN = noise_BN.argsort(dim=1, stable=True)
    restore_BN = order_BN.argsort(dim=1)
    return Masking(order_BN[:, :kept], restore_BN, (restore_BN >= kept).float())
