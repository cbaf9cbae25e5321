"""What stands for a scan: its CLS token, what its patches have in common, and what breaks the head's symmetry.

A healthy head is its own mirror image, nearly; blood, a shifted midline and a fracture are on one side. A network that
learned without labels tells a patch from the patch at the mirrored place all the better the more it knows of anatomy:
how far the two tokens are apart is a feature that few labels suffice for. That healthy sides differ too (a tilted head)
is what the probe behind it finds out.
B scans, N tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fmct.models.pooling_kinds import Pooling

TIMES_AS_WIDE: dict[Pooling, int] = {"mean+max": 2, "mean+std": 2, "mean+std+mirror": 4}
MOST_ASYMMETRIC = 8
"""Patches, per channel, whose mean asymmetry stands beside that of all: small lesions break the symmetry of a few."""


def is_mirrored(pooling: Pooling) -> bool:
    """Whether a pooling takes the tokens of the scan's mirror image, too."""
    return pooling == "mean+std+mirror"


def encode(backbone: nn.Module, x: Tensor, *, mirrored: bool) -> Tensor:
    """Encode scans, and beside them their mirror images, where a head asks for both.

    Args:
        backbone: gives (B, N, D) tokens.
        x: (B, C, Z, Y, X) windows, the last axis from right to left or back: that in which the head is symmetric.
        mirrored: whether to encode the mirror images.

    Returns:
        (B, N, D), or (B, N, 2 D) where at each place the mirror image's token is behind the scan's.
    """
    tokens: Tensor = backbone(with_mirror_image(x) if mirrored else x)
    return side_by_side(tokens) if mirrored else tokens


def with_mirror_image(x: Tensor) -> Tensor:
    """Put the mirror images of scans (B, ..., X) behind them: (2 B, ..., X)."""
    return torch.cat([x, x.flip(-1)])


def side_by_side(tokens: Tensor) -> Tensor:
    """Put the tokens of mirror images (2 B, N, D) beside those of the scans: (B, N, 2 D)."""
    return torch.cat(tokens.reshape(2, -1, *tokens.shape[1:]).unbind(0), -1)  # chunk(2) would fix B in ONNX


def over_the_mirror_image(maps_SZYX: Tensor) -> Tensor:
    """Add the map of a scan's mirror image, where there is one, onto the scan's own: (1 or 2, z, y, x) -> (z, y, x)."""
    return maps_SZYX[0] if len(maps_SZYX) == 1 else maps_SZYX[0] + maps_SZYX[1].flip(-1)


def pooled(tokens_BND: Tensor, pooling: Pooling, prefix_tokens: int) -> Tensor:
    """Pool a backbone's tokens; registers never count.

    Args:
        tokens_BND: (B, N, D), the scan's token first, patches last; (B, N, 2 D) from `encode` for `mean+std+mirror`.
        pooling: the CLS token; mean or greatest value over patches, per channel; the mean, and after it the greatest
            value or the standard deviation, which tells a few patches that differ from all of them a little; or these
            with the asymmetry |token − mirror image's token|: its mean over patches, and that of the
            `MOST_ASYMMETRIC` greatest.
        prefix_tokens: tokens before the patches, see `prefix_tokens_of`.

    Returns:
        (B, D); (B, 2 D) for `mean+max` and `mean+std`, (B, 4 D) for `mean+std+mirror`.
    """
    if pooling == "cls":
        return tokens_BND[:, 0]
    patches_BND = tokens_BND[:, prefix_tokens:]
    if pooling == "mean":
        return patches_BND.mean(1)
    if pooling == "max":
        return patches_BND.amax(1)
    if pooling == "mean+max":
        return torch.cat([patches_BND.mean(1), patches_BND.amax(1)], 1)
    if pooling == "mean+std":
        return torch.cat([patches_BND.mean(1), patches_BND.std(1, unbiased=False)], 1)
    own_BND, mirrored_BND = patches_BND.chunk(2, -1)
    asymmetry_BND = (own_BND - mirrored_BND).abs()
    greatest_BKD = asymmetry_BND.topk(min(MOST_ASYMMETRIC, asymmetry_BND.shape[1]), dim=1).values
    symmetric = [own_BND.mean(1), own_BND.std(1, unbiased=False)]
    return torch.cat([*symmetric, asymmetry_BND.mean(1), greatest_BKD.mean(1)], 1)


def pooled_width(width: int, pooling: Pooling) -> int:
    """Return the length of what `pooled` makes of tokens of a width."""
    return width * TIMES_AS_WIDE.get(pooling, 1)


def prefix_tokens_of(backbone: nn.Module) -> int:
    """Return how many tokens a backbone puts before its patches: one for the scan, unless it says otherwise."""
    count: int = getattr(backbone, "prefix_tokens", 1)
    return count
