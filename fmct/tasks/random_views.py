"""How tasks make random views of a batch: drawn per scan, sampled and shown for all scans at once.

B scans, C windows, N patches, Z, Y, X voxels.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from fmct.tasks.setting import Batch, Setting
from fmct.views.crops import CropConfig
from fmct.views.head_box import head_box
from fmct.views.intensity import IntensityConfig, IntensityParameters
from fmct.views.network_input import is_windowed


class RandomViews:
    """The part of a task that makes views.

    Attributes:
        setting: says what the network takes, and how large voxels are.
    """

    setting: Setting

    def random_view(
        self,
        batch: Batch,
        generators: list[np.random.Generator],
        crops: CropConfig,
        intensity: IntensityConfig,
        voxels: int | None = None,
    ) -> Tensor:
        """Draw and make one view of each scan, (B, C, voxels, voxels, voxels) float32 in [0, 1].

        Args:
            batch: what the loader gave.
            generators: one per scan.
            crops: what part of the scan is shown.
            intensity: how its intensities are changed.
            voxels: side of the view, if not `input.voxels`.

        Raises:
            UsageError: when crops are in mm or intensities in HU, and the volumes in neither.
        """
        sampled, change = self._sampled(batch, generators, crops, intensity, voxels)
        return self.setting.input.shown(sampled, batch["hu"], change)

    def random_view_with_foreground(
        self,
        batch: Batch,
        generators: list[np.random.Generator],
        crops: CropConfig,
        intensity: IntensityConfig,
        patch_zyx: tuple[int, int, int],
    ) -> tuple[Tensor, Tensor]:
        """Draw and make one view of each scan, the same as `random_view`, and mark its patches that aren't air.

        Args:
            batch: what the loader gave.
            generators: one per scan.
            crops: what part of the scan is shown.
            intensity: how its intensities are changed.
            patch_zyx: voxels of a patch along each axis.

        Returns:
            (B, C, voxels, voxels, voxels) float32 in [0, 1], and (B, N) bool: patches with any voxel above -700 HU.
        """
        sees = self.setting.input
        sampled, change = self._sampled(batch, generators, crops, intensity)
        foreground_BN = sees.foreground(sampled, batch["hu"], patch_zyx)
        return sees.shown(sampled, batch["hu"], change), foreground_BN

    def _sampled(
        self,
        batch: Batch,
        generators: list[np.random.Generator],
        crops: CropConfig,
        intensity: IntensityConfig,
        voxels: int | None = None,
    ) -> tuple[Tensor, IntensityParameters]:
        """Draw a view of each scan and sample it, as the cache has it; where heads lie is kept in the batch."""
        volumes: Tensor = batch["hu"]
        windowed = is_windowed(volumes)
        if windowed:
            intensity.require_hu()
        on_head = crops.place == "head" and not windowed
        if on_head and "head_box" not in batch:
            batch["head_box"] = head_box(volumes)
        spacing_mm = self.setting.spacing_mm
        crop = crops.draw(generators, spacing_mm and spacing_mm * volumes.shape[-1])
        change = intensity.draw(generators, self.setting.input.channels)
        boxes = batch["head_box"] if on_head else None
        sampled = self.setting.input.sampled(volumes, crop, voxels, boxes=boxes, blur_voxels=change.blur_voxels)
        return sampled, change
