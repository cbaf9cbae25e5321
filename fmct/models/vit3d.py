"""A 3D vision transformer with register tokens, for inputs of any size that its patches divide.

Shapes: B scans, C channels, N patches, K kept patches, R registers, D width, H heads, P voxels x channels of a patch.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fmct.console.errors import UsageError
from fmct.experiment.config import Config
from fmct.models.positions import interpolate_positions, patch_grid, sincos_positions

Voxels = Annotated[int, Field(gt=0)]
INIT_STD = 0.02


def per_axis(size: int | tuple[int, int, int]) -> tuple[int, int, int]:
    """Return a size for each of the three axes: a single number is meant for all of them."""
    return (size, size, size) if isinstance(size, int) else size


def check_width(width: int, heads: int) -> None:
    """Raise ValueError, naming the nearest widths that would do, unless `width` is a multiple of 6 and of `heads`."""
    step = math.lcm(6, heads)
    if width % step:
        below, above = width // step * step, (width // step + 1) * step
        near = f"{below} or {above}" if below else str(above)
        raise ValueError(f"width {width} must be divisible by 6 (3D positions) and by {heads} heads: try {near}")


class ViT3DConfig(Config):
    """A vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929) in 3D, with registers (arXiv 2309.16588)."""

    kind: Literal["vit3d"] = "vit3d"
    width: int = Field(768, gt=0, description="length of each token; divisible by 6 and by heads")
    depth: int = Field(12, gt=0, description="number of transformer blocks")
    heads: int = Field(12, gt=0, description="attention heads")
    patch_voxels: Voxels | tuple[Voxels, Voxels, Voxels] = Field(12, description="patch edge in voxels, or z, y, x")
    registers: int = Field(4, ge=0, description="register tokens, between CLS and patches")
    mlp_ratio: float = Field(4.0, gt=0, description="hidden width of the MLP over width")
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="chance that a scan skips the last block's branches (depth-linear)"
    )
    norm_eps: float = Field(1e-5, gt=0, description="epsilon of the layer norms in the blocks")
    final_norm_eps: float = Field(1e-6, gt=0, description="epsilon of the layer norm after the blocks")
    checkpoint_activations: bool = Field(
        False, description="recompute blocks in the backward pass: less memory, slower"
    )

    @model_validator(mode="after")
    def _divisible(self) -> ViT3DConfig:
        check_width(self.width, self.heads)
        return self

    def build(self, in_channels: int, input_voxels: int | tuple[int, int, int]) -> ViT3D:
        """Make the backbone, randomly initialized from torch's global generator.

        Args:
            in_channels: C.
            input_voxels: edge of the usual input, or its (Z, Y, X): positions are made for that grid.

        Raises:
            UsageError: when the patches don't divide the input.
        """
        return ViT3D(self, in_channels, per_axis(input_voxels))


def initialize_linear(module: nn.Module) -> None:
    """Draw a linear layer's weights from a truncated normal and zero its biases; leave other modules. For `apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its kernel, computed as one matrix product, and for the wanted patches only."""

    def __init__(self, in_channels: int, width: int, patch_zyx: tuple[int, int, int]) -> None:
        super().__init__()
        self.patch_zyx = patch_zyx
        self.weight = nn.Parameter(torch.empty(width, in_channels, *patch_zyx))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.trunc_normal_(self.weight, std=INIT_STD)

    def forward(self, x_BCZYX: Tensor, keep_BK: Tensor | None = None) -> Tensor:
        """Embed all patches, (B, N, D), or the kept ones, (B, K, D); Z, Y and X are multiples of the patch."""
        batch, channels, *shape = x_BCZYX.shape
        (pz, py, px), (gz, gy, gx) = self.patch_zyx, (n // p for n, p in zip(shape, self.patch_zyx, strict=True))
        blocks = x_BCZYX.reshape(batch, channels, gz, pz, gy, py, gx, px).permute(0, 2, 4, 6, 1, 3, 5, 7)
        patches_BNP = blocks.reshape(batch, gz * gy * gx, channels * pz * py * px)
        if keep_BK is not None:
            patches_BNP = patches_BNP.take_along_dim(keep_BK[..., None], dim=1)
        return F.linear(patches_BNP, self.weight.flatten(1), self.bias)


class Attention(nn.Module):
    """Multi-head self-attention through torch's fused kernels."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BND: Tensor, attended_BN: Tensor | None = None) -> Tensor:
        """Let every token attend to every token of its scan, or to those that `attended_BN` (bool) marks."""
        batch, tokens, width = x_BND.shape
        qkv = self.qkv(x_BND).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
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
    """A pre-norm transformer block with stochastic depth (Huang et al. 2016, arXiv 1603.09382) in training."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, norm_eps: float, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, round(width * mlp_ratio))

    def _branch(self, branch_BND: Tensor) -> Tensor:
        return drop_path(branch_BND, self.drop_path) if self.training and self.drop_path else branch_BND

    def forward(self, x_BND: Tensor, attended_BN: Tensor | None = None) -> Tensor:
        """Apply attention, to the marked tokens if `attended_BN` is given, then the MLP, each added to its input."""
        x_BND = x_BND + self._branch(self.attention(self.norm1(x_BND), attended_BN))
        return x_BND + self._branch(self.mlp(self.norm2(x_BND)))


class ViT3D(nn.Module):
    """The backbone; made by `ViT3DConfig.build`.

    Attributes:
        config: what it was built from.
        in_channels: C.
        width: D.
        registers: R.
        patch_zyx: voxels of a patch along each axis.
        grid_zyx: patches of the input that the positions were made for.
    """

    def __init__(self, config: ViT3DConfig, in_channels: int, input_zyx: tuple[int, int, int]) -> None:
        super().__init__()
        self.config = config
        self.in_channels = in_channels
        self.width = config.width
        self.registers = config.registers
        self.patch_zyx = per_axis(config.patch_voxels)
        self.grid_zyx = patch_grid(input_zyx, self.patch_zyx)
        self.patch_embedding = PatchEmbedding(in_channels, self.width, self.patch_zyx)
        self.positions = nn.Parameter(sincos_positions(self.width, self.grid_zyx))
        self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, self.width), std=INIT_STD))
        self.register_parameter("register_tokens", None)
        if self.registers:
            registers_1RD = torch.empty(1, self.registers, self.width)
            self.register_tokens = nn.Parameter(nn.init.trunc_normal_(registers_1RD, std=INIT_STD))
        self.blocks = nn.ModuleList(
            Block(
                self.width, config.heads, config.mlp_ratio, config.norm_eps, config.drop_path * (i + 1) / config.depth
            )
            for i in range(config.depth)
        )
        self.norm = nn.LayerNorm(self.width, eps=config.final_norm_eps)
        self.blocks.apply(initialize_linear)

    @property
    def prefix_tokens(self) -> int:
        """Tokens that stand before the patches: CLS and the registers."""
        return 1 + self.registers

    def no_decay_names(self) -> set[str]:
        """Name the parameters of two and more dimensions that weight decay should leave alone."""
        return {"cls_token", "positions"} | ({"register_tokens"} if self.registers else set())

    def grid_of(self, x_BCZYX: Tensor) -> tuple[int, int, int]:
        """Return how many patches the input has along each axis.

        Raises:
            UsageError: when the input isn't (B, C, Z, Y, X) with this model's channels, or the patches don't divide it.
        """
        if x_BCZYX.ndim != 5 or x_BCZYX.shape[1] != self.in_channels:
            raise UsageError(
                f"the input has shape {tuple(x_BCZYX.shape)}, not (scans, {self.in_channels} channels, Z, Y, X)",
                "the backbone's input",
                f"give as many display windows as the {self.in_channels} channels that the backbone was built for",
            )
        _, _, z, y, x = x_BCZYX.shape
        return patch_grid((z, y, x), self.patch_zyx)

    def forward(
        self,
        x_BCZYX: Tensor,
        keep_BK: Tensor | None = None,
        *,
        absent_BK: Tensor | None = None,
        hidden_BN: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """Turn windows into tokens.

        Args:
            x_BCZYX: (B, C, Z, Y, X) float windows in [0, 1].
            keep_BK: (B, K) int64 indices of the patches to see, in this order (no others are computed); None sees all.
            absent_BK: (B, K) bool, (B, N) without `keep_BK`: True where a patch only fills up; no token attends to it.
            hidden_BN: (B, N) bool, True where `mask_token` stands in a patch's place; not together with `keep_BK`.
            mask_token: (1, 1, D), needed with `hidden_BN`.

        Returns:
            (B, 1 + R + N, D), or K instead of N, after the final norm: CLS, registers, patches in row-major order.

        Raises:
            UsageError: see `grid_of`.
        """
        positions_1ND = interpolate_positions(self.positions, self.grid_zyx, self.grid_of(x_BCZYX))
        positions = positions_1ND if keep_BK is None else positions_1ND[0][keep_BK]
        patches_BND = self.patch_embedding(x_BCZYX, keep_BK)
        if hidden_BN is not None and mask_token is not None:
            patches_BND = torch.where(hidden_BN[..., None], mask_token.to(patches_BND.dtype), patches_BND)
        patches_BND = patches_BND + positions
        prefix = [t for t in (self.cls_token, self.register_tokens) if t is not None]
        x_BND = torch.cat([*(t.expand(len(patches_BND), -1, -1) for t in prefix), patches_BND], dim=1)
        attended_BN = None if absent_BK is None else F.pad(~absent_BK, (self.prefix_tokens, 0), value=True)
        for block in self.blocks:
            if self.config.checkpoint_activations and torch.is_grad_enabled():
                x_BND = checkpoint(block, x_BND, attended_BN, use_reentrant=False)
            else:
                x_BND = block(x_BND, attended_BN)
        tokens: Tensor = self.norm(x_BND)
        return tokens
