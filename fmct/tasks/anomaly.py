"""Finding planted anomalies: a few places of every view are changed, and the encoder's tokens say where.

Findings are places that don't look like the rest of the head. A network that finds what was planted – of no disease, on
scans without labels – has learned what belongs where, and few labels suffice to name what it finds.
B scans, C windows, N patches, D width, P cells of a patch.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torchmetrics.classification import BinaryAUROC

from fmct.console.errors import UsageError
from fmct.losses.reconstruction import patchify, unpatchify
from fmct.losses.targets import spread
from fmct.models.backbones import Backbone
from fmct.models.blocks import INIT_STD
from fmct.models.vit3d import ViT3D
from fmct.tasks.base import Batch, Setting, Task
from fmct.tasks.masked_modeling import require_vit
from fmct.tasks.pretext import PretextConfig
from fmct.views.anomalies import PlantingConfig
from fmct.views.crops import CropConfig, identity
from fmct.views.intensity import IntensityConfig, IntensityParameters
from fmct.views.network_input import is_windowed
from fmct.views.slices import in_one_window, middle_slices

RARE = -3.0
"""Logit that the head begins with: about one cell in twenty is changed."""
AUROC_THRESHOLDS = 200


class AnomalyConfig(PretextConfig):
    """Finding synthetic anomalies, by logistic regression on tokens: cells that were made brighter, and darker.

    After foreign patch interpolation (Tan et al. 2020, arXiv 2011.04197) and CutPaste (Li et al. 2021, arXiv
    2104.04015).
    """

    kind: Literal["anomaly"] = "anomaly"
    anomalies: PlantingConfig = PlantingConfig()
    cell_voxels: int = Field(4, ge=1, description="side of the cells that are told apart; divides the patch")
    least_hu: float = Field(2.0, gt=0, description="change of a cell's mean from which on it counts")
    crops: CropConfig = CropConfig(share=(0.85, 1.0), place="volume")
    intensity: IntensityConfig = IntensityConfig()

    def build(self, backbone: Backbone, setting: Setting) -> AnomalyTask:
        """Build the task around an encoder.

        Raises:
            UsageError: when the encoder isn't a vision transformer, or cells don't divide its patches.
        """
        vit = require_vit(backbone, "anomaly")
        if any(side % self.cell_voxels for side in vit.patch_zyx):
            raise UsageError(
                f"cells of {self.cell_voxels} voxels don't divide patches of {' x '.join(map(str, vit.patch_zyx))}",
                "task.cell_voxels",
                f"set it to {np.gcd.reduce(vit.patch_zyx)} or a divisor of that",
            )
        return AnomalyTask(self, vit, setting)


class AnomalyTask(Task):
    """Finding what was planted into one random crop per scan."""

    def __init__(self, config: AnomalyConfig, backbone: ViT3D, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.backbone = backbone
        self.cells_zyx = tuple(side // config.cell_voxels for side in backbone.patch_zyx)
        self.head = nn.Linear(backbone.width, 2 * int(np.prod(self.cells_zyx)))
        nn.init.trunc_normal_(self.head.weight, std=INIT_STD)
        nn.init.constant_(self.head.bias, RARE)
        self.auroc = BinaryAUROC(thresholds=AUROC_THRESHOLDS)

    def make_views(self, batch: Batch, generators: list[np.random.Generator]) -> Batch:
        """Make `x` (B, C, Z, Y, X) in [0, 1] with anomalies, `changed` (B, N, 2 P) and `present` (B, N) bool."""
        sampled, change = self._sampled(batch, generators, self.config.crops, self.config.intensity)
        return self._planted(batch, sampled, generators, change)

    def whole_view(self, batch: Batch) -> Batch:
        """Make the whole view with anomalies that depend on the scan alone."""
        sampled = self.setting.input.sampled(batch["hu"], identity(len(batch["hu"])))
        return self._planted(batch, sampled, self.generators_of_scans(batch))

    def _planted(
        self,
        batch: Batch,
        sampled: Tensor,
        generators: list[np.random.Generator],
        change: IntensityParameters | None = None,
    ) -> Batch:
        """Plant anomalies into sampled views, and add to the batch what is seen, what changed and what isn't air."""
        sees, volumes, config = self.setting.input, batch["hu"], self.config
        if is_windowed(volumes):
            raise UsageError(
                "the volumes are display windows, and anomalies are planted in HU",
                "the cache and task.kind anomaly",
                "use a cache of the preset isotropic, or another task",
            )
        planted = config.anomalies.plant(sampled, config.anomalies.draw(generators))
        changed = config.anomalies.changes(sampled, planted, config.cell_voxels, config.least_hu)
        return batch | {
            "x": sees.shown(planted, volumes, change),
            "changed": patchify(changed, self.cells_zyx),  # type: ignore[arg-type]
            "present": sees.foreground(sampled, volumes, self.backbone.patch_zyx),
        }

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Say of each cell whether it was made brighter or darker.

        Args:
            x: (B, C, Z, Y, X) in [0, 1].

        Returns:
            (B, N, 2 P) float32 logits, and (B, D) float32 features, detached: means of the patches' tokens.
        """
        patches_BND = self.backbone(x)[:, self.backbone.prefix_tokens :]
        logits: Tensor = self.head(patches_BND)
        return logits.float(), patches_BND.detach().float().mean(1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Find what was planted."""
        logits_BNP, self.watched_features = self(batch["x"])
        loss = cell_loss(logits_BNP, batch["changed"], batch["present"])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss on whole scans, and the AUROC over cells of patches that aren't air."""
        (logits_BNP, _), changed_BNP, present_BN = self(batch["x"]), batch["changed"], batch["present"]
        loss, size = cell_loss(logits_BNP, changed_BNP, present_BN), len(present_BN)
        self.log("val/loss", loss, batch_size=size, sync_dist=True, prog_bar=True)
        self.auroc.update(logits_BNP[present_BN].sigmoid(), changed_BNP[present_BN].long())
        self.log("val/auroc", self.auroc, on_epoch=True, on_step=False, batch_size=size)

    def validation_metrics(self) -> tuple[str, ...]:
        """Name what every validation logs."""
        return ("val/loss", "val/auroc")

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Draw up to three scans: as the encoder sees them, what was made brighter or darker, and what it says of that.

        Gray is unchanged, white brighter, black darker.
        """
        x, changed_BNP = batch["x"][:3], batch["changed"][:3]
        said_BNP = self(x)[0].sigmoid()
        rows = [in_one_window(x), self._as_gray(changed_BNP.float()), self._as_gray(said_BNP)]
        return {"anomalies": torch.cat([torch.cat([middle_slices(scan) for scan in row], 1) for row in rows], 0)}

    def _as_gray(self, cells_BNP: Tensor) -> Tensor:
        """Lay cells out in space: (B, N, 2 P) in [0, 1] -> (B, Z, Y, X)."""
        patch_zyx = self.backbone.patch_zyx
        patches_BNP = spread(cells_BNP, patch_zyx, self.config.cell_voxels)
        brighter, darker = unpatchify(patches_BNP, patch_zyx, (self.setting.input.voxels,) * 3).unbind(1)
        return 0.5 + (brighter - darker) / 2

    def packaged_backbone(self) -> Backbone:
        """Return the encoder."""
        return self.backbone


def cell_loss(logits_BNP: Tensor, changed_BNP: Tensor, present_BN: Tensor) -> Tensor:
    """Average the binary cross-entropy over the cells of a scan's patches that aren't air, and this over scans.

    Args:
        logits_BNP: (B, N, 2 P) float32.
        changed_BNP: (B, N, 2 P) bool.
        present_BN: (B, N) bool.

    Returns:
        Scalar float32; a scan that is all air counts 0.
    """
    entropy_BN = F.binary_cross_entropy_with_logits(logits_BNP, changed_BNP.float(), reduction="none").mean(-1)
    return ((entropy_BN * present_BN).sum(1) / present_BN.sum(1).clamp(min=1)).mean()
