"""A 3D vision transformer with register tokens, for inputs of any size that its patches divide.

Shapes: B scans, C channels, N patches, K kept patches, R registers, D width.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fmct.console.errors import UsageError
from fmct.experiment.config import Config
from fmct.models.blocks import INIT_STD, Block, initialize_linear
from fmct.models.patch_embedding import PatchEmbedding
from fmct.models.positions import interpolate_positions, patch_grid, sincos_positions
from fmct.models.rotary import rotary_angles, rotation_of
from fmct.models.vit_sizes import SIZES

Voxels = Annotated[int, Field(gt=0)]


def per_axis(size: int | tuple[int, int, int]) -> tuple[int, int, int]:
    """Return a size for each of the three axes: a single number is meant for all of them."""
    return (size, size, size) if isinstance(size, int) else size


def check_width(width: int, heads: int) -> None:
    """Raise ValueError, naming the nearest widths that would do, unless `heads` divide `width`, which is at least 6."""
    if width < 6 or width % heads:
        least = -(-6 // heads) * heads
        near = sorted({max(width // heads * heads, least), max((width // heads + 1) * heads, least)})
        raise ValueError(
            f"width {width} must be at least 6 (3D positions) and divisible by {heads} heads: "
            f"try {' or '.join(map(str, near))}"
        )


class ViT3DConfig(Config):
    """A vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929) in 3D, with registers (arXiv 2309.16588)."""

    kind: Literal["vit3d"] = "vit3d"
    size: Literal["small", "base", "large", "huge"] | None = Field(
        None, exclude=True, description="gives those of width, depth and heads that aren't given; records hold these"
    )
    width: int = Field(768, gt=0, description="length of each token; divisible by heads")
    depth: int = Field(12, gt=0, description="number of transformer blocks")
    heads: int = Field(12, gt=0, description="attention heads")
    patch_voxels: Voxels | tuple[Voxels, Voxels, Voxels] = Field(12, description="patch edge in voxels, or z, y, x")
    registers: int = Field(4, ge=0, description="register tokens, between CLS and patches")
    positions: Literal["sincos", "rope"] = Field(
        "sincos", description="sincos: added to patches, then learned; rope: queries and keys turned in every block"
    )
    mlp_ratio: float = Field(4.0, gt=0, description="hidden width of the MLP over width")
    layer_scale: float | None = Field(
        None,
        gt=0,
        description="first value of a learned factor per channel on every branch (1e-5 is usual); null: none",
    )
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="chance that a scan skips the last block's branches (depth-linear)"
    )
    norm_eps: float = Field(1e-5, gt=0, description="epsilon of the layer norms in the blocks")
    final_norm_eps: float = Field(1e-6, gt=0, description="epsilon of the layer norm after the blocks")
    checkpoint_activations: bool = Field(
        False, description="recompute blocks in the backward pass: less memory, slower"
    )

    @model_validator(mode="before")
    @classmethod
    def _put_numbers_for_size(cls, given: Any) -> Any:
        """Put in what the size stands for, so that configurations of one architecture are equal.

        Raises:
            ValueError: when width, depth and heads are all given, and not as the size has them.
        """
        name = given.get("size") if isinstance(given, dict) else None
        size = SIZES.get(name) if isinstance(name, str) else None
        if size is None:
            return given
        meant = size._asdict()
        if meant.keys() <= given.keys() and any(given[key] != value for key, value in meant.items()):
            listed = ", ".join(f"{key} {given[key]}" for key in meant)
            raise ValueError(f"size {name} has no effect beside {listed}: leave out the size or one of them")
        return meant | {key: value for key, value in given.items() if key != "size"}

    @model_validator(mode="after")
    def _divisible(self) -> ViT3DConfig:
        check_width(self.width, self.heads)
        head_width = self.width // self.heads
        if self.positions == "rope" and (head_width < 6 or head_width % 2):
            raise ValueError(f"rope turns pairs along three axes: heads of {head_width} must be even and at least 6")
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


class ViT3D(nn.Module):
    """The backbone; made by `ViT3DConfig.build`.

    Attributes:
        config: what it was built from.
        in_channels: C.
        width: D.
        registers: R.
        patch_zyx: voxels of a patch along each axis.
        grid_zyx: patches of the input that it was built for, and the sine-cosine positions for.
        blocks: the transformer blocks, which are compiled and divided among processes one by one.
        positions: (1, N, D) parameter, or None where queries and keys are turned.
    """

    positions: Tensor | None

    def __init__(self, config: ViT3DConfig, in_channels: int, input_zyx: tuple[int, int, int]) -> None:
        super().__init__()
        self.config = config
        self.in_channels = in_channels
        self.width = config.width
        self.registers = config.registers
        self.patch_zyx = per_axis(config.patch_voxels)
        self.grid_zyx = patch_grid(input_zyx, self.patch_zyx)
        self.patch_embedding = PatchEmbedding(in_channels, self.width, self.patch_zyx)
        self.register_parameter("positions", None)
        if config.positions == "sincos":
            self.positions = nn.Parameter(sincos_positions(self.width, self.grid_zyx))
        self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, self.width), std=INIT_STD))
        self.register_parameter("register_tokens", None)
        if self.registers:
            registers_1RD = torch.empty(1, self.registers, self.width)
            self.register_tokens = nn.Parameter(nn.init.trunc_normal_(registers_1RD, std=INIT_STD))
        self.blocks = nn.ModuleList(
            Block(
                self.width,
                config.heads,
                config.mlp_ratio,
                config.norm_eps,
                config.drop_path * (i + 1) / config.depth,
                config.layer_scale,
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
        return {"cls_token", "register_tokens", "positions"} & dict(self.named_parameters()).keys()

    @property
    def layers(self) -> int:
        """Layers for layer-wise learning rates: what makes tokens of patches, then the blocks."""
        return 1 + len(self.blocks)

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter, from 0; the final norm comes after all of them."""
        part, _, rest = name.partition(".")
        if part == "blocks":
            return 1 + int(rest.partition(".")[0])
        return self.layers if part == "norm" else 0

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
        grid_zyx, rotation = self.grid_of(x_BCZYX), None
        patches_BND = self.patch_embedding(x_BCZYX, keep_BK)
        if hidden_BN is not None and mask_token is not None:
            patches_BND = torch.where(hidden_BN[..., None], mask_token.to(patches_BND.dtype), patches_BND)
        if self.positions is not None:
            positions_1ND = interpolate_positions(self.positions, self.grid_zyx, grid_zyx)
            patches_BND = patches_BND + (positions_1ND if keep_BK is None else positions_1ND[0][keep_BK])
        else:
            angles_NP = rotary_angles(self.width // self.config.heads, grid_zyx, x_BCZYX.device)
            rotation = rotation_of(angles_NP[None] if keep_BK is None else angles_NP[keep_BK], self.prefix_tokens)
        prefix = [t for t in (self.cls_token, self.register_tokens) if t is not None]
        x_BND = torch.cat([*(t.expand(patches_BND.shape[0], -1, -1) for t in prefix), patches_BND], dim=1)
        attended_BN = None if absent_BK is None else F.pad(~absent_BK, (self.prefix_tokens, 0), value=True)
        for block in self.blocks:
            if self.config.checkpoint_activations and torch.is_grad_enabled():
                x_BND = checkpoint(block, x_BND, attended_BN, rotation, use_reentrant=False)
            else:
                x_BND = block(x_BND, attended_BN, rotation)
        tokens: Tensor = self.norm(x_BND)
        return tokens
