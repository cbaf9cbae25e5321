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
    level_hu, width_hu = levels_and_widths(levels)
    return windows_per_scan(hu, level_hu - width_hu / 2, width_hu)


def levels_and_widths(levels: Sequence[Window]) -> tuple[Tensor, Tensor]:
    """Return levels and widths, (1, C) float32 HU each."""
    return torch.tensor([[w.level_hu for w in levels]]), torch.tensor([[w.width_hu for w in levels]])


def windows_per_scan(
    hu: Tensor, lower_hu: Tensor, width_hu: Tensor, least: Tensor | float = 0.0, most: Tensor | float = 1.0
) -> Tensor:
    """Scale HU into display windows of each scan's own, at most two passes over each.

    Args:
        hu: (B, 1, Z, Y, X) int16 or float, Hounsfield units.
        lower_hu: (B, C) or (1, C), on the host: what becomes 0.
        width_hu: as `lower_hu`: so much above becomes 1.
        least: as `lower_hu`, or a number: results are raised to this.
        most: as `least`: results are lowered to this.

    Returns:
        (B, C, Z, Y, X) float32.
    """
    hu = hu.float()
    B, C = len(hu), max(lower_hu.shape[1], width_hu.shape[1])
    shown = torch.empty(B, C, *hu.shape[2:], device=hu.device)
    values = [
        torch.as_tensor(value, dtype=torch.float32) for value in (-lower_hu / width_hu, 1 / width_hu, least, most)
    ]
    drawn = torch.stack([value.expand(B, C) for value in values])
    for here in together(hu):
        for channel in range(C):
            if hu[here].shape[0] == 1:  # numbers are faster than tensors of one
                at_zero, slope, low, high = drawn[:, here, channel].flatten().tolist()
                scaled = torch.add(
                    torch.tensor(at_zero, device=hu.device), hu[here, 0], alpha=slope, out=shown[here, channel]
                )
                scaled.clamp_(low, high)
                continue
            of_scans = drawn[:, here, channel].to(hu, non_blocking=True)[..., None, None, None]
            at_zero, slope, low, high = of_scans.unbind()
            torch.addcmul(at_zero, hu[here, 0], slope, out=shown[here, channel]).clamp_(low, high)
    return shown
