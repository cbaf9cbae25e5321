"""Masked image modelling: most patches are hidden, the decoder restores them.

B scans, C windows, N patches.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

from fmct.models.backbones import Backbone
from fmct.models.masking import Foreground
from fmct.models.vit3d import ViT3D
from fmct.tasks.base import Batch, Setting, Task
from fmct.tasks.masked_modeling import MaskedModelingConfig, draw_mask_order, require_vit
from fmct.tasks.pretext import PretextConfig
from fmct.views.crops import CropConfig, identity
from fmct.views.intensity import IntensityConfig


class MAEConfig(PretextConfig, MaskedModelingConfig):
    """Masked autoencoder (He et al. 2022, arXiv 2111.06377) on 3D patches."""

    kind: Literal["mae"] = "mae"
    crops: CropConfig = CropConfig(share=(0.6, 1.0))
    intensity: IntensityConfig = IntensityConfig()

    def build(self, backbone: Backbone, setting: Setting) -> MAETask:
        """Build the task around an encoder.

        Raises:
            UsageError: when the encoder isn't a vision transformer: others can't leave patches out.
        """
        return MAETask(self, require_vit(backbone, "mae"), setting)


class MAETask(Task):
    """Masked image modelling on one random crop per scan."""

    def __init__(self, config: MAEConfig, backbone: ViT3D, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.backbone = backbone
        self.decoder = config.decoder.build(backbone, setting.input.channels, config.target_pool_voxels)

    def make_views(self, batch: Batch, generators: list[np.random.Generator]) -> Batch:
        """Make `x` (B, C, Z, Y, X) in [0, 1], `order` (B, N) in which patches hide, and maybe `foreground`."""
        drawn = (batch, generators, self.config.crops, self.config.intensity)
        if not self.config.foreground:
            return self._with_order(batch | {"x": self.random_view(*drawn)}, generators)
        x, foreground_BN = self.random_view_with_foreground(*drawn, self.backbone.patch_zyx)
        return self._with_order(batch | {"x": x, "foreground": Foreground.of(foreground_BN)}, generators)

    def whole_view(self, batch: Batch) -> Batch:
        """Make the whole view with a mask that depends on the scan alone."""
        batch = super().whole_view(batch)
        if self.config.foreground:
            sees, volumes = self.setting.input, batch["hu"]
            foreground_BN = sees.foreground(
                sees.sampled(volumes, identity(len(volumes))), volumes, self.backbone.patch_zyx
            )
            batch = batch | {"foreground": Foreground.of(foreground_BN)}
        return self._with_order(batch, self.generators_of_scans(batch))

    def _with_order(self, batch: Batch, generators: list[np.random.Generator]) -> Batch:
        return batch | {"order": draw_mask_order(self.config.masking, self.backbone, batch["x"], generators)}

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.config.loss(self.backbone, self.decoder, batch["x"], batch["order"], batch.get("foreground"))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Restore what was hidden; the loss counts hidden patches only."""
        loss, self.watched_features = self._loss(batch)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss on whole, unaugmented scans."""
        loss, _ = self._loss(batch)
        self.log("val/loss", loss, batch_size=len(batch["x"]), sync_dist=True, prog_bar=True)

    def validation_metrics(self) -> tuple[str, ...]:
        """Name what every validation logs."""
        return ("val/loss",)

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Draw up to three scans: what is there, what the encoder sees, what the decoder makes of it."""
        foreground: Foreground | None = batch.get("foreground")
        masking = self.config.mask(
            batch["order"][:3], foreground and foreground.of_views(range(len(batch["order"][:3])))
        )
        return {"reconstruction": self.config.picture(self.backbone, self.decoder, batch["x"][:3], masking)}

    def packaged_backbone(self) -> Backbone:
        """Return the encoder."""
        return self.backbone
