"""The parts of a transformer block: attention through torch's fused kernels, an MLP, stochastic depth, layer scale.

Shapes: B scans, N tokens, D width, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmct.models.rotary import rotate

INIT_STD = 0.02


def initialize_linear(module: nn.Module) -> None:
    """Draw a linear layer's weights from a truncated normal and zero its biases; leave other modules. For `apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Attention(nn.Module):
    """Multi-head self-attention through torch's fused kernels."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BND: Tensor, attended_BN: Tensor | None = None, rotation: Tensor | None = None) -> Tensor:
        """Let every token attend to every token of its scan, or to those that `attended_BN` (bool) marks.

        Args:
            x_BND: tokens.
            attended_BN: which of them are attended to; None: all.
            rotation: turns queries and keys, from `fmct.models.rotary.rotation_of`; None: they stay.

        Returns:
            (B, N, D).
        """
        batch, tokens, width = x_BND.shape
        qkv = self.qkv(x_BND).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        mask = None if attended_BN is None else attended_BN[:, None, None]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        projected: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, tokens, width))
        return projected


class MLP(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Transform each token by itself, (B, N, D) to (B, N, D)."""
        out: Tensor = self.down(F.gelu(self.up(x_BND)))
        return out


def drop_path(branch_BND: Tensor, rate: float) -> Tensor:
    """Zero the branch of each scan with chance `rate`, and scale the others up so that the expectation stays."""
    kept = torch.rand(branch_BND.shape[0], 1, 1, device=branch_BND.device) >= rate
    return branch_BND * (kept.to(branch_BND.dtype) / (1 - rate))


class Block(nn.Module):
    """A pre-norm transformer block.

    Args:
        width: D.
        heads: H.
        mlp_ratio: hidden width of the MLP over D.
        norm_eps: epsilon of the layer norms.
        drop_path: stochastic depth in training (Huang et al. 2016, arXiv 1603.09382), chance of a branch per scan.
        layer_scale: first value of a learned factor per channel on each branch (Touvron et al. 2021, arXiv 2103.17239,
            section 2.1); None: no factor.
    """

    scale1: Tensor | None
    scale2: Tensor | None

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        norm_eps: float,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, round(width * mlp_ratio))
        for name in ("scale1", "scale2"):
            self.register_parameter(
                name, None if layer_scale is None else nn.Parameter(torch.full((width,), layer_scale))
            )

    def _branch(self, branch_BND: Tensor, scale: Tensor | None) -> Tensor:
        if scale is not None:
            branch_BND = branch_BND * scale
        return drop_path(branch_BND, self.drop_path) if self.training and self.drop_path else branch_BND

    def forward(self, x_BND: Tensor, attended_BN: Tensor | None = None, rotation: Tensor | None = None) -> Tensor:
        """Apply attention (see there), then the MLP, each added to its input."""
        x_BND = x_BND + self._branch(self.attention(self.norm1(x_BND), attended_BN, rotation), self.scale1)
        return x_BND + self._branch(self.mlp(self.norm2(x_BND)), self.scale2)
