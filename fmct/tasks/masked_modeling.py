"""Masked image modelling of one view: what the task `mae` is, and self-distillation may add.

B scans, C windows, N patches, K patches that the encoder sees, M that take part, P voxels x windows of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fmct.console.errors import UsageError
from fmct.experiment.config import Config
from fmct.losses.reconstruction import NORMALIZE_EPS, patchify, reconstruction_loss, unpatchify
from fmct.models.backbones import Backbone
from fmct.models.decoder import DecoderConfig, MAEDecoder
from fmct.models.mask_orders import MaskingConfig, RandomMasking
from fmct.models.masking import Foreground, Masking, foreground_keep, random_keep
from fmct.models.vit3d import ViT3D
from fmct.views.slices import middle_slices
from fmct.views.smoothing import blur

HIDDEN_GRAY = 0.35


class Reconstruction(NamedTuple):
    """What the decoder makes of a batch of views."""

    prediction_BMP: Tensor
    target_BMP: Tensor
    masking: Masking
    seen_BD: Tensor
    """Mean of the encoder's tokens of seen patches, detached."""


class MaskedModelingConfig(Config):
    """Masked autoencoding (He et al. 2022, arXiv 2111.06377) of 3D patches."""

    mask_ratio: float = Field(0.75, gt=0, lt=1, description="share of patches hidden from the encoder")
    masking: MaskingConfig = Field(RandomMasking(), description="random: each patch by itself; block: cuboids of them")
    foreground: bool = Field(
        False, description="leave out patches of air (no voxel above -700 HU): neither seen, nor restored, nor scored"
    )
    normalize_target: bool = Field(False, description="predict each patch with its mean and variance taken out")
    target_blur_voxels: float = Field(
        0.0,
        ge=0,
        le=3,
        description="predict a smoothed view, which holds less noise: the Gaussian's deviation; 0: none",
    )
    decoder: DecoderConfig = DecoderConfig()

    def mask(self, noise_BN: Tensor, foreground: Foreground | None) -> Masking:
        """Decide what is hidden, from what `masking.draw` drew and the patches that aren't air, if told."""
        if foreground is None:
            return random_keep(noise_BN, self.mask_ratio)
        return foreground_keep(noise_BN, self.mask_ratio, foreground)

    def reconstruct(self, encoder: ViT3D, decoder: MAEDecoder, x: Tensor, masking: Masking) -> Reconstruction:
        """Encode what is seen of views x (B, C, Z, Y, X) in [0, 1], and predict all patches that take part."""
        latent = encoder(x, masking.keep_BK, absent_BK=masking.absent_BK)
        prediction = decoder(latent, masking.restore_BN, shown_BM=masking.shown_BM, absent_BM=masking.absent_BM)
        target = blur(x, torch.full((len(x),), self.target_blur_voxels)) if self.target_blur_voxels else x
        patches = latent[:, encoder.prefix_tokens :].detach().float()
        if masking.absent_BK is None:
            seen_BD = patches.mean(1)
        else:
            present_BK1 = ~masking.absent_BK.unsqueeze(2)
            seen_BD = (patches * present_BK1).sum(1) / present_BK1.sum(1)
        return Reconstruction(prediction, masking.of_shown(patchify(target, encoder.patch_zyx)), masking, seen_BD)

    def loss(
        self, encoder: ViT3D, decoder: MAEDecoder, x: Tensor, order_BN: Tensor, foreground: Foreground | None
    ) -> tuple[Tensor, Tensor]:
        """Hide patches of views, restore them, and score those that were hidden.

        Where air is left out, views of about equally many patches go through the networks together: of a whole batch
        the longest would set the length.

        Args:
            encoder: sees what isn't hidden.
            decoder: restores the rest.
            x: (B, C, Z, Y, X) views in [0, 1].
            order_BN: from `draw_mask_order`.
            foreground: patches that aren't air; None: all count.

        Returns:
            The loss, scalar float32: the mean over scans of each one's mean over its hidden patches; and (B, D) float32
            features, detached: the means of the encoder's tokens, scans in any order.
        """
        groups = [None] if foreground is None else foreground.groups()
        losses, features = [], []
        for views in groups:
            part, share = (x, order_BN, foreground), 1.0
            if foreground is not None and views is not None and len(groups) > 1:
                index = torch.tensor(views).to(x.device, non_blocking=True)
                part = (x.index_select(0, index), order_BN.index_select(0, index), foreground.of_views(views))
                share = len(views) / len(x)
            made = self.reconstruct(encoder, decoder, part[0], self.mask(*part[1:]))
            restored = (made.prediction_BMP, made.target_BMP, made.masking.scored)
            losses.append(share * reconstruction_loss(*restored, self.normalize_target))
            features.append(made.seen_BD)
        return torch.stack(losses).sum(), torch.cat(features)

    def picture(self, encoder: ViT3D, decoder: MAEDecoder, x: Tensor, masking: Masking) -> Tensor:
        """Draw what is there, what the encoder sees, and what the decoder makes of it, one above the other."""
        made = self.reconstruct(encoder, decoder, x, masking)
        predicted, target, patches = made.prediction_BMP.float(), made.target_BMP, patchify(x, encoder.patch_zyx)
        if self.normalize_target:
            deviation = (target.var(-1, keepdim=True) + NORMALIZE_EPS).sqrt()
            predicted = predicted * deviation + target.mean(-1, keepdim=True)
        if masking.shown_BM is not None:
            predicted = patches.scatter(1, masking.shown_BM[..., None].expand_as(predicted), predicted)
        hidden = masking.mask_BN.unsqueeze(-1)
        z, y, width = x.shape[2:]
        rows = []
        for shown in (
            patches,
            patches.lerp(torch.full_like(patches, HIDDEN_GRAY), hidden),
            patches.lerp(predicted, hidden),
        ):
            volume = unpatchify(shown, encoder.patch_zyx, (z, y, width))
            rows.append(torch.cat([middle_slices(scan[0]) for scan in volume.clamp(0, 1)], 1))
        return torch.cat(rows, 0)


def draw_mask_order(
    masking: MaskingConfig, encoder: ViT3D, x: Tensor, generators: Sequence[np.random.Generator]
) -> Tensor:
    """Draw in which order patches of views x (B, C, Z, Y, X) are hidden: (B, N) float32, on their device."""
    return masking.draw(generators, encoder.grid_of(x)).to(x.device)


def require_vit(backbone: Backbone, what: str) -> ViT3D:
    """Return a backbone that can leave out or hide patches.

    Args:
        backbone: any.
        what: that needs it.

    Raises:
        UsageError: when it isn't a vision transformer.
    """
    if not isinstance(backbone, ViT3D):
        raise UsageError(
            f"{what} needs a backbone of kind vit3d", "backbone.kind", "set it to vit3d, or use plain dino"
        )
    return backbone
