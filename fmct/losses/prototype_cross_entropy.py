"""Cross-entropy against prototypes, a few rows at a time: the logits of all rows are never there at once.

Shapes: R rows, D bottleneck, K prototypes. With 65,536 prototypes the logits of ten views of 64 scans take 168 MB, and
the plain loss and its gradient hold several such tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes the gradient along with the loss, chunk by chunk, so that nothing is computed twice."""

    @staticmethod
    def forward(
        ctx: Any,
        embedding_RD: Tensor,
        directions_KD: Tensor,
        weight_R: Tensor,
        temperature: float,
        chunk_rows: int,
        *targets: Tensor,
    ) -> Tensor:
        kind = embedding_RD.device.type
        product_type = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else embedding_RD.dtype
        directions = directions_KD.to(product_type)
        by_embedding = torch.empty_like(embedding_RD)
        by_directions = torch.zeros_like(directions_KD)
        loss = embedding_RD.new_zeros((), dtype=torch.float32)
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(embedding_RD), chunk_rows):
                rows = slice(start, start + chunk_rows)
                embedding, weight_R1 = embedding_RD[rows].to(product_type), weight_R[rows, None]
                target = _rows_of(targets, start, start + len(embedding))
                log_p = (embedding @ directions.T).float().div_(temperature).log_softmax(-1)
                loss -= (target * log_p).sum(-1) @ weight_R[rows]
                by_logits = log_p.exp_().mul_(target.sum(-1, keepdim=True)).sub_(target)
                by_logits = by_logits.mul_(weight_R1 / temperature).to(product_type)
                by_embedding[rows] = by_logits @ directions
                if product_type == by_directions.dtype:
                    by_directions.addmm_(by_logits.T, embedding)
                else:
                    by_directions += by_logits.T @ embedding
        ctx.save_for_backward(by_embedding, by_directions)
        return loss

    @staticmethod
    def backward(ctx: Any, *by_loss: Tensor) -> tuple[Tensor | None, ...]:
        by_embedding, by_directions = ctx.saved_tensors
        nothing = [None] * (len(ctx.needs_input_grad) - 2)
        return by_embedding * by_loss[0], by_directions * by_loss[0], *nothing


def _rows_of(targets: Sequence[Tensor], start: int, end: int) -> Tensor:
    """Return rows start to end of tensors of equally many rows, as if they were one."""
    each = len(targets[0])
    first, last = start // each, (end - 1) // each
    pieces = [targets[n][max(start - n * each, 0) : end - n * each] for n in range(first, last + 1)]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def prototype_cross_entropy(
    embedding_RD: Tensor,
    directions_KD: Tensor,
    targets: Sequence[Tensor],
    weight_R: Tensor,
    temperature: float,
    chunk_rows: int,
) -> Tensor:
    """Sum the weighted cross-entropy of rows against the softmax over their products with the prototypes.

    Args:
        embedding_RD: (R, D) float, the student's; under autocast products are as precise as they would be there.
        directions_KD: (K, D) float, the prototypes.
        targets: (rows, K) float32 each, equally many rows, R together, in the order of `embedding_RD`; the same tensor
            may come again. No gradient flows into them.
        weight_R: (R,) float32.
        temperature: divides the products.
        chunk_rows: rows at a time.

    Returns:
        Scalar float32. Its gradient is as large as the inputs; it can't be differentiated twice.
    """
    loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        embedding_RD, directions_KD, weight_R, temperature, chunk_rows, *(t.detach() for t in targets)
    )
    return loss
