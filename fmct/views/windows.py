"""Display windows: Hounsfield units scaled to [0, 1], one channel per window.

B scans, C windows, Z, Y, X voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from fmct.experiment.config import Config


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
    lower = torch.tensor([w.level_hu - w.width_hu / 2 for w in levels], device=hu.device).view(1, -1, 1, 1, 1)
    width = torch.tensor([w.width_hu for w in levels], device=hu.device).view(1, -1, 1, 1, 1)
    return ((hu.float() - lower) / width).clamp_(0, 1)
