"""Masked image modelling: most patches are hidden, the decoder restores them.

B scans, C windows, N patches, K patches that the encoder sees.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fmct.console.errors import UsageError
from fmct.experiment.config import Config
from fmct.losses.reconstruction import patchify, reconstruction_loss, unpatchify
from fmct.models.backbones import Backbone
from fmct.models.decoder import DecoderConfig
from fmct.models.masking import Masking, random_keep
from fmct.models.vit3d import ViT3D
from fmct.tasks.base import Batch, Setting, Task
from fmct.views.crops import CropConfig
from fmct.views.intensity import IntensityConfig
from fmct.views.slices import middle_slices


class MAEConfig(Config):
    """Masked autoencoder (He et al. 2022, arXiv 2111.06377) on 3D patches."""

    kind: Literal["mae"] = "mae"
    mask_ratio: float = Field(0.75, gt=0, lt=1, description="share of patches hidden from the encoder")
    normalize_target: bool = Field(False, description="predict each patch with its mean and variance taken out")
    decoder: DecoderConfig = DecoderConfig()
    crops: CropConfig = CropConfig(share=(0.6, 1.0))
    intensity: IntensityConfig = IntensityConfig()

    def build(self, backbone: Backbone, setting: Setting) -> MAETask:
        """Build the task around an encoder.

        Raises:
            UsageError: when the encoder isn't a vision transformer: others can't leave patches out.
        """
        if not isinstance(backbone, ViT3D):
            raise UsageError("mae needs a backbone of kind vit3d", "backbone.kind", "set it to vit3d, or use task dino")
        return MAETask(self, backbone, setting)


class MAETask(Task):
    """Masked image modelling on one random crop per scan."""

    def __init__(self, config: MAEConfig, backbone: ViT3D, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.backbone = backbone
        self.decoder = config.decoder.build(backbone, setting.input.channels)

    def make_views(self, batch: Batch, generators: list[np.random.Generator]) -> Batch:
        """Make `x` (B, C, Z, Y, X) in [0, 1] and `noise` (B, N), which decides what is hidden."""
        x = self.random_view(batch, generators, self.config.crops, self.config.intensity)
        return batch | {"x": x, "noise": self._noise(x, generators)}

    def whole_view(self, batch: Batch) -> Batch:
        """Make the whole view with a mask that depends on the scan alone."""
        batch = super().whole_view(batch)
        generators = [np.random.default_rng([self.setting.seed, index]) for index in batch["index"].tolist()]
        return batch | {"noise": self._noise(batch["x"], generators)}

    def _noise(self, x: Tensor, generators: list[np.random.Generator]) -> Tensor:
        patches = int(np.prod(self.backbone.grid_of(x)))
        return torch.from_numpy(np.stack([g.random(patches, dtype=np.float32) for g in generators])).to(x.device)

    def reconstruct(self, batch: Batch) -> tuple[Tensor, Tensor, Masking]:
        """Return the prediction (B, N, patch values), the true patches and the masking."""
        masking = random_keep(batch["noise"], self.config.mask_ratio)
        latent = self.backbone(batch["x"], masking.keep_BK)
        prediction = self.decoder(latent, masking.restore_BN)
        return prediction, patchify(batch["x"], self.backbone.patch_zyx), masking

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Restore what was hidden; the loss counts hidden patches only."""
        prediction, patches, masking = self.reconstruct(batch)
        loss = reconstruction_loss(prediction, patches, masking.mask_BN, self.config.normalize_target)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss on whole, unaugmented scans."""
        prediction, patches, masking = self.reconstruct(batch)
        loss = reconstruction_loss(prediction, patches, masking.mask_BN, self.config.normalize_target)
        self.log("val/loss", loss, batch_size=len(batch["x"]), sync_dist=True, prog_bar=True)

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Draw up to three scans: what is there, what the encoder sees, what the decoder makes of it."""
        few = {"x": batch["x"][:3], "noise": batch["noise"][:3]}
        prediction, patches, masking = self.reconstruct(few)
        prediction = prediction.float()
        if self.config.normalize_target:
            mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
            prediction = prediction * (variance + 1e-6).sqrt() + mean
        hidden = masking.mask_BN.unsqueeze(-1)
        shape = few["x"].shape[2:]
        rows = []
        for shown in (patches, patches * (1 - hidden) + 0.35 * hidden, patches * (1 - hidden) + prediction * hidden):
            volume = unpatchify(shown, self.backbone.patch_zyx, shape)
            rows.append(torch.cat([middle_slices(scan[0]) for scan in volume.clamp(0, 1)], 1))
        return {"reconstruction": torch.cat(rows, 0)}

    def packaged_backbone(self) -> Backbone:
        """Return the encoder."""
        return self.backbone
