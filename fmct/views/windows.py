"""Display windows: Hounsfield units scaled to [0, 1], one channel per window.

B scans, C windows, Z, Y, X voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from fmct.experiment.config import Config
from fmct.views.spatial import together


class Window(Config):
    """A radiologist's display window."""

    level_hu: float = Field(description="center of the window, HU")
    width_hu: float = Field(gt=0, description="width of the window, HU")


BRAIN = Window(level_hu=40, width_hu=80)
SUBDURAL = Window(level_hu=80, width_hu=200)
BONE = Window(level_hu=600, width_hu=2800)


def windows(hu: Tensor, levels: Sequence[Window]) -> Tensor:
    """Scale HU into display windows.

    Args:
        hu: (B, 1, Z, Y, X) int16 or float, Hounsfield units.
        levels: level and width of each output channel, HU.

    Returns:
        (B, len(levels), Z, Y, X) float32 in [0, 1], clipped.
    """
    return windows_per_scan(hu, *levels_and_widths(levels))


def levels_and_widths(levels: Sequence[Window]) -> tuple[Tensor, Tensor]:
    """Return levels and widths, (1, C) float32 HU each."""
    return torch.tensor([[w.level_hu for w in levels]]), torch.tensor([[w.width_hu for w in levels]])


def windows_per_scan(hu: Tensor, level_hu: Tensor, width_hu: Tensor) -> Tensor:
    """Scale HU into display windows of each scan's own.

    Args:
        hu: (B, 1, Z, Y, X) int16 or float, Hounsfield units.
        level_hu: (B, C), or (1, C) for all scans, on the host.
        width_hu: as `level_hu`.

    Returns:
        (B, C, Z, Y, X) float32 in [0, 1], clipped.
    """
    hu = hu.float()
    B, C = len(hu), level_hu.shape[1]
    shown = torch.empty(B, C, *hu.shape[2:], device=hu.device)
    lower_hu, width_hu = (
        values.expand(B, C).to(hu, non_blocking=True)[..., None, None, None]
        for values in (level_hu - width_hu / 2, width_hu)
    )
    for here in together(hu):
        for channel in range(C):
            lower, width = lower_hu[here, channel], width_hu[here, channel]
            torch.sub(hu[here, 0], lower, out=shown[here, channel]).div_(width).clamp_(0, 1)
    return shown
