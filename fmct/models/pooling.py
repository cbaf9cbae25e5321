"""What stands for a scan: its CLS token, or what its patches have in common.

B scans, N tokens, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["cls", "mean", "max", "mean+max"]


def pooled(tokens_BND: Tensor, pooling: Pooling, prefix_tokens: int) -> Tensor:
    """Pool a backbone's tokens; registers never count.

    Args:
        tokens_BND: (B, N, D), the scan's token first, patches last.
        pooling: the CLS token; mean or greatest value over patches, per channel; or both of these, one after the other.
        prefix_tokens: tokens before the patches, see `prefix_tokens_of`.

    Returns:
        (B, D), or (B, 2 D) for `mean+max`.
    """
    if pooling == "cls":
        return tokens_BND[:, 0]
    patches_BND = tokens_BND[:, prefix_tokens:]
    if pooling == "mean":
        return patches_BND.mean(1)
    if pooling == "max":
        return patches_BND.amax(1)
    return torch.cat([patches_BND.mean(1), patches_BND.amax(1)], 1)


def pooled_width(width: int, pooling: Pooling) -> int:
    """Return the length of what `pooled` makes of tokens of a width."""
    return 2 * width if pooling == "mean+max" else width


def prefix_tokens_of(backbone: nn.Module) -> int:
    """Return how many tokens a backbone puts before its patches: one for the scan, unless it says otherwise."""
    count: int = getattr(backbone, "prefix_tokens", 1)
    return count
