"""Where a vision transformer looks: rollout, the last block's heads, and relevance for a label.

All three say of each patch how much it counts for what the classification is read from. Attention maps come from
`fmct.models.attention_maps`: one per block, whose rows (queries) sum to 1, CLS and registers before the patches.

Shapes: B scans, H heads, T tokens (CLS, registers, N patches), Q = 1 query of an attentive head's pooling.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def rollout(means_BTT: Iterable[Tensor], prefix_tokens: int) -> Tensor:
    """Follow attention through all blocks (Abnar & Zuidema 2020, arXiv 2005.00928, section 3).

    A block hands on half of what a token was (its residual) and half of what it attends to: Ã = (A + I) / 2, A the mean
    over heads. The product of all Ã says how much of each input token is in each output token.

    Args:
        means_BTT: each block's attention, mean over its heads, in order.
        prefix_tokens: tokens before the patches.

    Returns:
        (B, N) float32: how much of each patch is in CLS. With the prefix's share, which is left out, they sum to 1.
    """
    cls_B1T: Tensor | None = None
    for mean_BTT in reversed(list(means_BTT)):  # from CLS downward, a row at a time is enough
        if cls_B1T is None:
            cls_B1T = torch.zeros_like(mean_BTT[:, :1], dtype=torch.float32)
            cls_B1T[..., 0] = 1
        cls_B1T = (cls_B1T @ mean_BTT.float() + cls_B1T) / 2
    if cls_B1T is None:
        raise ValueError("rollout needs the attention of at least one block")
    return cls_B1T[:, 0, prefix_tokens:]


def cls_heads(map_BHTT: Tensor, prefix_tokens: int) -> Tensor:
    """Return what CLS attends to, head by head, as in DINO's figure 1 (Caron et al. 2021, arXiv 2104.14294).

    Args:
        map_BHTT: attention of the last block.
        prefix_tokens: tokens before the patches.

    Returns:
        (B, H, N) float32.
    """
    return map_BHTT[:, :, 0, prefix_tokens:].float()


def relevance(
    maps: Sequence[Tensor], gradients: Sequence[Tensor], prefix_tokens: int, read_BT: Tensor | None = None
) -> Tensor:
    """Say how much each patch counts for an output (Chefer et al. 2021, arXiv 2103.15679, equations 1, 5 and 6).

    Of each block's attention A what raises the output y is taken, Ā = mean over heads of (∂y/∂A ⊙ A)⁺, and relevance R,
    the identity at first, grows by Ā R from block to block. It is read where the output is: at CLS, or by the weights
    given, or, where an attentive head pools tokens by one query, at what the query attends to (equation 10).

    Args:
        maps: (B, H, T, T) attention of each block, in order; maybe one of (B, H, Q, T) of the head behind them.
        gradients: of the sum over scans of an output with respect to `maps`.
        prefix_tokens: tokens before the patches.
        read_BT: how much the output takes of each of the last block's tokens, from `read_weights`; None: CLS alone.

    Returns:
        (B, N) float32, not negative; 0 where a patch doesn't count, in units of the output.
    """
    first = maps[0]
    relevance_BTT = torch.eye(first.shape[-1], device=first.device).expand(len(first), -1, -1)
    for map_BHQT, gradient_BHQT in zip(maps, gradients, strict=True):
        rising_BQT = (gradient_BHQT.float() * map_BHQT.detach().float()).clamp(min=0).mean(1)
        added_BQT = rising_BQT @ relevance_BTT
        if added_BQT.shape != relevance_BTT.shape:  # the head's query: the end
            return added_BQT[:, 0, prefix_tokens:]
        relevance_BTT = relevance_BTT + added_BQT
    if read_BT is None:
        return relevance_BTT[:, 0, prefix_tokens:]
    return (read_BT[:, None] @ relevance_BTT)[:, 0, prefix_tokens:]


def read_weights(tokens_BTD: Tensor, gradients_BTD: Tensor) -> Tensor:
    """Say how much an output takes of each token that a head without attention reads.

    A mean over tokens is attention whose map is the same everywhere: so as in `relevance` what counts is the rectified
    product of gradient and token, here against the mean of the tokens that are read, as a head's norm takes off what
    all share. Where CLS alone is read, it is 1 there and 0 elsewhere.

    Args:
        tokens_BTD: after the final norm.
        gradients_BTD: of the sum over scans of an output with respect to them.

    Returns:
        (B, T) float32, not negative.
    """
    read_BT1 = (gradients_BTD != 0).any(-1, keepdim=True).float()
    if not read_BT1[:, 1:].any():
        return read_BT1[..., 0]
    tokens_BTD = tokens_BTD.detach().float()
    mean_B1D = (tokens_BTD * read_BT1).sum(1, keepdim=True) / read_BT1.sum(1, keepdim=True)
    return ((tokens_BTD - mean_B1D) * gradients_BTD.float()).sum(-1).clamp(min=0)
