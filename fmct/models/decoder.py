"""The MAE decoder: from the seen tokens to all patches' voxels (He et al. 2022, arXiv 2111.06377, section 3).

Shapes: B scans, K seen of N patches, R registers, E encoder width, D decoder width, P voxels x channels of a patch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from fmct.console.errors import UsageError
from fmct.experiment.config import Config
from fmct.models.blocks import INIT_STD, Block, initialize_linear
from fmct.models.positions import sincos_positions
from fmct.models.vit3d import ViT3D, check_width


class DecoderConfig(Config):
    """A light transformer that predicts the voxels of every patch."""

    depth: int = Field(4, gt=0, description="number of transformer blocks")
    width: int = Field(384, gt=0, description="length of each token; divisible by heads")
    heads: int = Field(6, gt=0, description="attention heads")
    mlp_ratio: float = Field(4.0, gt=0, description="hidden width of the MLP over width")
    norm_eps: float = Field(1e-5, gt=0, description="epsilon of all layer norms")

    @model_validator(mode="after")
    def _divisible(self) -> DecoderConfig:
        check_width(self.width, self.heads)
        return self

    def build(self, encoder: ViT3D, out_channels: int, pool_voxels: int = 1) -> MAEDecoder:
        """Make the decoder of `encoder`, for inputs of the size that the encoder was built for.

        Args:
            encoder: gives width, registers, grid and patch.
            out_channels: channels of the volume to predict.
            pool_voxels: edge of the cubes whose means are predicted; 1: every voxel is.

        Raises:
            UsageError: when the cubes don't divide the patches.
        """
        if any(side % pool_voxels for side in encoder.patch_zyx):
            fits = [n for n in range(1, min(encoder.patch_zyx) + 1) if not any(p % n for p in encoder.patch_zyx)]
            raise UsageError(
                f"cubes of {pool_voxels} voxels don't divide patches of {encoder.patch_zyx}",
                "target_pool_voxels of masked image modelling",
                f"use one of {', '.join(map(str, fits))}",
            )
        return MAEDecoder(self, encoder, out_channels, pool_voxels)


class MAEDecoder(nn.Module):
    """The decoder; made by `DecoderConfig.build`.

    Registers don't enter it: they hold what the encoder keeps for itself. CLS and the seen patches do, and every
    parameter takes part in every prediction.
    """

    def __init__(self, config: DecoderConfig, encoder: ViT3D, out_channels: int, pool_voxels: int = 1) -> None:
        super().__init__()
        self.config = config
        self.prefix_tokens = encoder.prefix_tokens
        self.patches = math.prod(encoder.grid_zyx)
        self.embed = nn.Linear(encoder.width, config.width)
        self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, config.width), std=INIT_STD))
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, config.width), std=INIT_STD))
        self.positions = nn.Parameter(sincos_positions(config.width, encoder.grid_zyx))
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio, config.norm_eps) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        cubes = math.prod(side // pool_voxels for side in encoder.patch_zyx)
        self.predict = nn.Linear(config.width, cubes * out_channels)
        self.apply(initialize_linear)

    def no_decay_names(self) -> set[str]:
        """Name the parameters of two and more dimensions that weight decay should leave alone."""
        return {"cls_token", "mask_token", "positions"}

    def forward(
        self,
        latent: Tensor,
        restore_BN: Tensor,
        *,
        shown_BM: Tensor | None = None,
        absent_BM: Tensor | None = None,
    ) -> Tensor:
        """Predict the voxels of all patches, seen and hidden.

        Args:
            latent: (B, 1 + R + K, E) the encoder's tokens of the seen patches.
            restore_BN: (B, N) int64, where patch n stands among seen-then-hidden ones (`Masking.restore_BN`).
            shown_BM: (B, M) int64, the patches that take part, if not all; then `restore_BN` is (B, M) and theirs.
            absent_BM: (B, M) bool, True where a patch only fills up; no token attends to it.

        Returns:
            (B, N, P), or M instead of N, voxels in (z, y, x, channel) order, as in
            `fmct.losses.reconstruction.patchify`.

        Raises:
            UsageError: when N isn't the number of patches that the encoder was built for.
        """
        patches = restore_BN.shape[1]
        if shown_BM is None and patches != self.patches:
            raise UsageError(
                f"the input has {patches} patches; the decoder was built for {self.patches}",
                "the MAE decoder",
                "build the backbone for the size of input that is reconstructed",
            )
        x_BND = self.embed(torch.cat([latent[:, :1], latent[:, self.prefix_tokens :]], dim=1))
        seen_BKD = x_BND[:, 1:]
        hidden_B1D = self.mask_token.to(x_BND.dtype).expand(len(seen_BKD), -1, -1)
        source_BN = restore_BN.clamp(max=seen_BKD.shape[1])
        patches_BND = torch.cat([seen_BKD, hidden_B1D], dim=1).take_along_dim(source_BN[..., None], dim=1)
        positions = self.positions if shown_BM is None else self.positions[0][shown_BM]
        x_BND = torch.cat([x_BND[:, :1] + self.cls_token, patches_BND + positions], dim=1)
        attended_BN = None if absent_BM is None else F.pad(~absent_BM, (1, 0), value=True)
        for block in self.blocks:
            x_BND = block(x_BND, attended_BN)
        prediction: Tensor = self.predict(self.norm(x_BND)[:, 1:])
        return prediction
