"""Changes of intensity for whole batches of windowed views: gain, shift, gamma and smoothing.

B scans, C windows, Z, Y, X voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fmct.experiment.config import Config


@dataclass(frozen=True)
class IntensityParameters:
    """What was drawn for each scan: (B,) float32 each."""

    gain: Tensor
    shift: Tensor
    gamma: Tensor
    blur_voxels: Tensor


class IntensityConfig(Config):
    """How strongly intensities vary; the defaults leave them as they are."""

    gain: float = Field(0.0, ge=0, lt=1, description="greatest relative change of contrast")
    shift: float = Field(0.0, ge=0, lt=1, description="greatest shift, as a share of the window")
    gamma: float = Field(0.0, ge=0, lt=2, description="greatest change of log gamma")
    blur_voxels: float = Field(0.0, ge=0, le=3, description="greatest standard deviation of the Gaussian, voxels")
    probability: float = Field(0.5, ge=0, le=1, description="probability of each change")

    def draw(self, generators: Sequence[np.random.Generator]) -> IntensityParameters:
        """Draw one set of parameters per scan, each change applied or not by itself."""
        drawn = np.stack([g.uniform(size=8) for g in generators])
        applied = drawn[:, :4] < self.probability
        signed = (2 * drawn[:, 4:] - 1) * applied
        tensor = torch.from_numpy
        return IntensityParameters(
            gain=tensor(1 + self.gain * signed[:, 0]).float(),
            shift=tensor(self.shift * signed[:, 1]).float(),
            gamma=tensor(np.exp(self.gamma * signed[:, 2])).float(),
            blur_voxels=tensor(self.blur_voxels * drawn[:, 7] * applied[:, 3]).float(),
        )


def change_intensity(views: Tensor, parameters: IntensityParameters) -> Tensor:
    """Apply drawn parameters.

    Args:
        views: (B, C, Z, Y, X) float32 in [0, 1].
        parameters: one value per scan.

    Returns:
        (B, C, Z, Y, X) float32 in [0, 1].
    """

    def per_scan(values: Tensor) -> Tensor:
        return values.to(views.device).view(-1, 1, 1, 1, 1)

    if bool((parameters.blur_voxels > 0).any()):
        views = blur(views, parameters.blur_voxels)
    changed = (views - 0.5) * per_scan(parameters.gain) + 0.5 + per_scan(parameters.shift)
    changed = changed.clamp(0, 1)
    if bool((parameters.gamma != 1).any()):
        changed = changed.pow(per_scan(parameters.gamma))
    return changed


def blur(views: Tensor, sigma_voxels: Tensor) -> Tensor:
    """Smooth each scan by its own Gaussian, one axis at a time; a scan with sigma 0 stays as it is.

    Args:
        views: (B, C, Z, Y, X) float32.
        sigma_voxels: (B,) standard deviations.

    Returns:
        (B, C, Z, Y, X) float32; edges are replicated.
    """
    B, C = views.shape[:2]
    radius = max(1, int(np.ceil(3 * float(sigma_voxels.max()))))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernels = torch.exp(-0.5 * (offsets / sigma_voxels.clamp(min=1e-3).view(-1, 1)) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).to(views)
    flat = views.reshape(1, B * C, *views.shape[2:])
    for axis in range(3):
        shape = [1, 1, 1]
        shape[axis] = 2 * radius + 1
        weight = kernels.repeat_interleave(C, 0).view(B * C, 1, *shape)
        padding = [0] * 6
        padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = radius
        flat = F.conv3d(F.pad(flat, padding, mode="replicate"), weight, groups=B * C)
    return flat.view_as(views)
