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
from fmct.losses.reconstruction import patch_statistics, patchify, reconstruction_loss, unpatchify
from fmct.losses.targets import make_target, spread
from fmct.models.backbones import Backbone
from fmct.models.decoder import DecoderConfig, MAEDecoder
from fmct.models.mask_orders import MaskingConfig, RandomMasking
from fmct.models.masking import Foreground, Masking, foreground_keep, random_keep
from fmct.models.vit3d import ViT3D
from fmct.views.slices import in_one_window, middle_slices

HIDDEN_GRAY = 0.35


class Reconstruction(NamedTuple):
    """What the decoder makes of a batch of views."""

    prediction_BMP: Tensor
    target_BMP: Tensor
    weight_BMP: Tensor | None
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
    target_pool_voxels: int = Field(
        1, ge=1, description="predict means over cubes of so many voxels along each edge, which divide the patch"
    )
    skip_saturated: bool = Field(
        False, description="don't score voxels that every window shows at its lowest, or every one at its highest"
    )
    seen_weight: float = Field(
        0.0, ge=0, description="weight of the error on seen patches, so that tokens keep what their own patch shows"
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
        target = make_target(
            x,
            encoder.patch_zyx,
            blur_voxels=self.target_blur_voxels,
            pool_voxels=self.target_pool_voxels,
            skip_saturated=self.skip_saturated,
        )
        weight_BMP = None if target.weight_BNP is None else masking.of_shown(target.weight_BNP)
        patches = latent[:, encoder.prefix_tokens :].detach().float()
        if masking.absent_BK is None:
            seen_BD = patches.mean(1)
        else:
            present_BK1 = ~masking.absent_BK.unsqueeze(2)
            seen_BD = (patches * present_BK1).sum(1) / present_BK1.sum(1)
        return Reconstruction(prediction, masking.of_shown(target.values_BNP), weight_BMP, masking, seen_BD)

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
            The loss, scalar float32: the mean over scans of each one's mean over its hidden patches, plus
            `seen_weight` times that over the seen ones; and (B, D) float32
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
            error = self._error(made, made.masking.scored)
            if self.seen_weight:
                error = error + self.seen_weight * self._error(made, made.masking.seen)
            losses.append(share * error)
            features.append(made.seen_BD)
        return torch.stack(losses).sum(), torch.cat(features)

    def _error(self, made: Reconstruction, mask_BM: Tensor) -> Tensor:
        return reconstruction_loss(
            made.prediction_BMP, made.target_BMP, mask_BM, self.normalize_target, made.weight_BMP
        )

    def picture(self, encoder: ViT3D, decoder: MAEDecoder, x: Tensor, masking: Masking) -> Tensor:
        """Draw what is there, what the encoder sees, and what the decoder makes of it, one above the other.

        In the first window, or in the mean of them where there are more than three, which are narrow then.
        """
        made = self.reconstruct(encoder, decoder, x, masking)
        predicted, patch_zyx, pool = made.prediction_BMP.float(), encoder.patch_zyx, self.target_pool_voxels
        if self.normalize_target:
            mean_BM1, deviation_BM1 = patch_statistics(made.target_BMP, made.weight_BMP)
            predicted = predicted * deviation_BM1 + mean_BM1
        predicted, patches = spread(predicted, patch_zyx, pool), patchify(x, patch_zyx)
        shown = masking.mask_BN.unsqueeze(-1)
        if made.weight_BMP is not None:  # of what isn't scored, nothing was predicted
            scored = spread((made.weight_BMP > 0).float(), patch_zyx, pool)
            shown = shown * self._in_place(scored, torch.zeros_like(patches), masking)
        predicted = self._in_place(predicted, patches, masking)
        gray = patches.lerp(torch.full_like(patches, HIDDEN_GRAY), masking.mask_BN.unsqueeze(-1))
        rows = []
        for row in (patches, gray, gray.lerp(predicted, shown)):
            volume = unpatchify(row, patch_zyx, x.shape[2:]).clamp(0, 1)  # type: ignore[arg-type]  # a Size of three
            rows.append(torch.cat([middle_slices(scan) for scan in in_one_window(volume)], 1))
        return torch.cat(rows, 0)

    @staticmethod
    def _in_place(values_BMP: Tensor, others_BNP: Tensor, masking: Masking) -> Tensor:
        """Put values of the patches that take part among those of all."""
        if masking.shown_BM is None:
            return values_BMP
        return others_BNP.scatter(1, masking.shown_BM[..., None].expand_as(values_BMP), values_BMP)


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
