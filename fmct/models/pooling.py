"""From a scan's tokens to one vector. B scans, N tokens, D width."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["cls", "mean", "max", "mean+max"]


def pooled(tokens_BND: Tensor, prefix_tokens: int, pooling: Pooling) -> Tensor:
    """Pool tokens.

    Args:
        tokens_BND: (B, N, D), the token for the scan first, then any registers, then those of places.
        prefix_tokens: tokens that stand for no place: the scan's and the registers.
        pooling: `cls` takes the scan's token; `mean` and `max` go over the places, without the prefix; `mean+max` is
            both, one after the other.

    Returns:
        (B, D), or (B, 2 D) for `mean+max`.
    """
    if pooling == "cls":
        return tokens_BND[:, 0]
    places = tokens_BND[:, prefix_tokens:]
    parts = {"mean": lambda: places.mean(1), "max": lambda: places.amax(1)}
    return torch.cat([parts[part]() for part in pooling.split("+")], dim=-1)


def pooled_width(width: int, pooling: Pooling) -> int:
    """Return how many values `pooled` makes of tokens of width D."""
    return width * len(pooling.split("+"))
