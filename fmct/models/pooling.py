"""What stands for a scan: its CLS token, or what its patches have in common.

B scans, N tokens, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["cls", "mean", "max", "mean+max", "mean+std"]
TWICE_AS_WIDE = {"mean+max", "mean+std"}


def pooled(tokens_BND: Tensor, pooling: Pooling, prefix_tokens: int) -> Tensor:
    """Pool a backbone's tokens; registers never count.

    Args:
        tokens_BND: (B, N, D), the scan's token first, patches last.
        pooling: the CLS token; mean or greatest value over patches, per channel; or the mean, and after it the greatest
            value or the standard deviation, which tells a few patches that differ from all of them a little.
        prefix_tokens: tokens before the patches, see `prefix_tokens_of`.

    Returns:
        (B, D), or (B, 2 D) for `mean+max` and `mean+std`.
    """
    if pooling == "cls":
        return tokens_BND[:, 0]
    patches_BND = tokens_BND[:, prefix_tokens:]
    if pooling == "mean":
        return patches_BND.mean(1)
    if pooling == "max":
        return patches_BND.amax(1)
    aside_BD = patches_BND.amax(1) if pooling == "mean+max" else patches_BND.std(1, unbiased=False)
    return torch.cat([patches_BND.mean(1), aside_BD], 1)


def pooled_width(width: int, pooling: Pooling) -> int:
    """Return the length of what `pooled` makes of tokens of a width."""
    return 2 * width if pooling in TWICE_AS_WIDE else width


def prefix_tokens_of(backbone: nn.Module) -> int:
    """Return how many tokens a backbone puts before its patches: one for the scan, unless it says otherwise."""
    count: int = getattr(backbone, "prefix_tokens", 1)
    return count
