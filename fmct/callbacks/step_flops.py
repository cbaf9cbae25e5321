"""Floating-point operations of a training step, counted while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Shape = Sequence[int]


def attention_flop(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Count an attention's forward pass by its shapes, (B, heads, tokens, width of a head)."""
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def attention_backward_flop(gradient: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Count an attention's backward pass by its shapes, (B, heads, tokens, width of a head)."""
    return int(sdpa_backward_flop_count(gradient, query, key, value))  # type: ignore[no-untyped-call]


CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flop,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flop,
}
"""Torch's counter knows the kernels of GPUs only."""


class StepFlops:
    """Counts matrix products, convolutions and attention between `begin` and `end`, forward and backward.

    What activation checkpointing computes twice counts twice. Compiled code isn't seen into, so it runs uncompiled in
    between. No result changes by a bit.
    """

    def __init__(self) -> None:
        self.counter = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
        self.stack = ExitStack()

    def begin(self) -> None:
        """Start counting."""
        self.stack.enter_context(torch.compiler.set_stance("force_eager"))
        self.stack.enter_context(self.counter)

    def end(self) -> int:
        """Stop counting; return the operations on this device, where a product and a sum are two."""
        self.stack.close()
        return int(self.counter.get_total_flops())
