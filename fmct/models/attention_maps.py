"""The softmax maps of attention, which fused kernels never form: recomputed only while somebody asks for them.

Every attention of a model (its blocks, then an attentive head's pooling) calls `scaled_dot_product_attention`. While
`AttentionMaps` is entered, those calls are made in two products instead, and the map between them is kept, within
autograd's graph. No model knows of it, and without it nothing costs more.

Shapes: B scans, H heads, Q queries, N keys.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class AttentionMaps(TorchFunctionMode):
    """Keeps the maps of the attentions that run while it is entered.

    `with AttentionMaps() as maps: model.tokens(x)` leaves `maps.kept` with one map per block.

    Args:
        wanted: which attentions, counted from 0 in the order of their calls; None: all. The others stay fused.
        reduce: what is kept of a map (B, H, Q, N), whose rows sum to 1: the map itself, or less where memory is short.
    """

    def __init__(
        self, wanted: Collection[int] | None = None, reduce: Callable[[Tensor], Tensor] = lambda map_BHQN: map_BHQN
    ) -> None:
        super().__init__()
        self.wanted = wanted
        self.reduce = reduce
        self.calls = 0
        self.kept: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Let every function of torch be, but for attention."""
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        number, self.calls = self.calls, self.calls + 1
        if self.wanted is not None and number not in self.wanted:
            return func(*args, **kwargs)
        return self._attend(*args, **kwargs)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, scale: float | None = None
    ) -> Tensor:
        map_BHQN = attention_map(query, key, attn_mask, scale)
        self.kept.append(self.reduce(map_BHQN))
        return map_BHQN @ value


def attention_map(query: Tensor, key: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """Return how much each query attends to each key: softmax(scale · q kᵀ), computed in float32.

    Args:
        query: (B, H, Q, width of a head).
        key: (B, H, N, width of a head).
        mask: bool, broadcast to (B, H, Q, N), False where a key isn't attended to.
        scale: of the scores; None: 1 / √width of a head (Vaswani et al. 2017, arXiv 1706.03762, equation 1).

    Returns:
        (B, H, Q, N) of the query's type; rows sum to 1.
    """
    scores = (query @ key.mT).float() * (query.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).to(query.dtype)
