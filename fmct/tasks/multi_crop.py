"""Large and small views of the same scans, and their picture.

B scans, C windows, N patches.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fmct.experiment.config import Config
from fmct.models.masking import Foreground
from fmct.tasks.base import Batch, Task
from fmct.views.crops import CropConfig
from fmct.views.intensity import IntensityConfig
from fmct.views.slices import in_one_window, middle_slices

GLOBAL_VIEWS = 2


class MultiCropConfig(Config):
    """Two global views and several local ones (Caron et al. 2020, arXiv 2006.09882, section 3.3)."""

    local_views: int = Field(8, ge=0, description="small views per scan, beside the two global ones")
    local_voxels: int = Field(48, gt=0, description="side of a local view: its true size, not blown up")
    global_crops: CropConfig = CropConfig(share=(0.5, 1.0))
    local_crops: CropConfig = CropConfig(share=(0.25, 0.5))
    intensity: IntensityConfig = IntensityConfig(gain=0.2, shift=0.1, gamma=0.3, blur_voxels=0.7)

    def make(
        self,
        task: Task,
        batch: Batch,
        generators: list[np.random.Generator],
        foreground_of: tuple[int, int, int] | None,
    ) -> Batch:
        """Draw and make the views of a batch.

        Args:
            task: makes each view.
            batch: what the loader gave.
            generators: one per scan.
            foreground_of: a patch in voxels, if it is wanted which patches of the global views aren't air.

        Returns:
            The batch with `global_views` (2 · B, C, ...), `local_views` (V · B, C, ...) if there are any, both view by
            view, and `foreground` of the global views if wanted.
        """
        drawn = (batch, generators, self.global_crops, self.intensity)
        made: Batch = {}
        if foreground_of is None:
            made["global_views"] = torch.cat([task.random_view(*drawn) for _ in range(GLOBAL_VIEWS)])
        else:
            pairs = [task.random_view_with_foreground(*drawn, foreground_of) for _ in range(GLOBAL_VIEWS)]
            made["global_views"] = torch.cat([view for view, _ in pairs])
            made["foreground"] = Foreground.of(torch.cat([patches for _, patches in pairs]))
        if self.local_views:
            drawn = (batch, generators, self.local_crops, self.intensity)
            views = [task.random_view(*drawn, self.local_voxels) for _ in range(self.local_views)]
            made["local_views"] = torch.cat(views)
        return batch | made


def views_picture(batch: Batch) -> Tensor:
    """Draw the views of the first scan, global ones above, local ones below: (H, W) in [0, 1]."""
    count = len(batch["hu"])
    rows = [
        torch.cat([middle_slices(in_one_window(view)) for view in batch[kind][::count]], 1)
        for kind in ("global_views", "local_views")
        if kind in batch
    ]
    width = max(row.shape[1] for row in rows)
    return torch.cat([F.pad(row, (0, width - row.shape[1])) for row in rows], 0)
