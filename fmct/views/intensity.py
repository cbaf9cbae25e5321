"""Changes of intensity for whole batches of views: smoothing, noise, windows, gain, shift and gamma.

B scans, C windows, Z, Y, X voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fmct.console.errors import UsageError
from fmct.experiment.config import Config
from fmct.views.spatial import together


@dataclass(frozen=True)
class IntensityParameters:
    """What was drawn for each scan, on the host: (B,) float32 each, but for the seed and the windows.

    Attributes:
        gain: factor on contrast, about the middle of the window.
        shift: as a share of the window.
        gamma: exponent.
        blur_voxels: standard deviation of a Gaussian, in voxels of the view.
        noise_hu: standard deviation of Gaussian noise.
        noise_seed: (B,) int64, says which noise.
        level_shift_hu: (B, C), added to each window's level.
        width_factor: (B, C), on each window's width.
    """

    gain: Tensor
    shift: Tensor
    gamma: Tensor
    blur_voxels: Tensor
    noise_hu: Tensor
    noise_seed: Tensor
    level_shift_hu: Tensor
    width_factor: Tensor


class IntensityConfig(Config):
    """How strongly intensities vary; the defaults leave them as they are."""

    gain: float = Field(0.0, ge=0, lt=1, description="greatest relative change of contrast")
    shift: float = Field(0.0, ge=0, lt=1, description="greatest shift, as a share of the window")
    gamma: float = Field(0.0, ge=0, lt=2, description="greatest change of log gamma")
    blur_voxels: float = Field(
        0.0, ge=0, le=3, description="greatest standard deviation of the Gaussian that HU are smoothed with, voxels"
    )
    noise_hu: float = Field(0.0, ge=0, le=200, description="greatest standard deviation of noise added to HU")
    window_shift_hu: float = Field(0.0, ge=0, le=200, description="greatest shift of each window's level, HU")
    window_width: float = Field(0.0, ge=0, lt=1, description="greatest change of the log of each window's width")
    probability: float = Field(
        0.5, ge=0, le=1, description="probability of each change; level and width of windows change together"
    )

    def draw(self, generators: Sequence[np.random.Generator], windows: int) -> IntensityParameters:
        """Draw one set of parameters per scan, each change applied or not by itself.

        Args:
            generators: one per scan.
            windows: C.
        """
        drawn = np.stack([g.uniform(size=11 + 2 * windows) for g in generators])
        applied = drawn[:, [0, 1, 2, 3, 8, 9]] < self.probability
        signed = (2 * drawn[:, 4:7] - 1) * applied[:, :3]
        jitter = (2 * drawn[:, 11:] - 1) * applied[:, 5:]

        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).float()

        return IntensityParameters(
            gain=tensor(1 + self.gain * signed[:, 0]),
            shift=tensor(self.shift * signed[:, 1]),
            gamma=tensor(np.exp(self.gamma * signed[:, 2])),
            blur_voxels=tensor(self.blur_voxels * drawn[:, 7] * applied[:, 3]),
            noise_hu=tensor(self.noise_hu * drawn[:, 10] * applied[:, 4]),
            noise_seed=torch.tensor([int(g.integers(2**62)) for g in generators]),
            level_shift_hu=tensor(self.window_shift_hu * jitter[:, :windows]),
            width_factor=tensor(np.exp(self.window_width * jitter[:, windows:])),
        )

    def require_hu(self) -> None:
        """Check that nothing is asked for that only HU allow, for volumes which are windows already.

        Raises:
            UsageError: when noise in HU or other windows are.
        """
        if self.noise_hu or self.window_shift_hu or self.window_width:
            raise UsageError(
                "the volumes are display windows, which take neither noise in HU nor other windows",
                "noise_hu, window_shift_hu and window_width of the task's intensity",
                "set them to 0, or use a cache of the preset isotropic",
            )


def add_noise(hu: Tensor, parameters: IntensityParameters) -> Tensor:
    """Add each scan's own noise, drawn on the device.

    A kind of device draws the same for a seed, whatever the batch; another kind draws another.

    Args:
        hu: (B, 1, Z, Y, X) float32.
        parameters: `noise_hu` and `noise_seed` count.

    Returns:
        (B, 1, Z, Y, X) float32; the tensor given, where there is no noise.
    """
    noisy = parameters.noise_hu.nonzero().flatten().tolist()
    if not noisy:
        return hu
    hu = hu.clone()
    generator = torch.Generator(hu.device)
    for row in noisy:
        generator.manual_seed(int(parameters.noise_seed[row]))
        noise = torch.randn(hu.shape[1:], generator=generator, device=hu.device)
        hu[row].add_(noise, alpha=float(parameters.noise_hu[row]))
    return hu


def contrast_of_windows(
    lower_hu: Tensor, width_hu: Tensor, parameters: IntensityParameters
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Work gain and shift into windows, so that they cost nothing.

    With w = clip((hu - lower) / width), what `change_contrast` makes of it, clip(gain · w + offset) with offset =
    .5 + shift - .5 · gain, is (hu - lower') / width' clipped to the images of 0 and 1.

    Args:
        lower_hu: (B, C) or (1, C), lower ends of windows.
        width_hu: their widths.
        parameters: `gain` and `shift` count.

    Returns:
        lower', width', and the least and greatest value, for `fmct.views.windows.windows_per_scan`: (B, C) or (B, 1).
    """
    gain = parameters.gain.unsqueeze(1)
    offset = 0.5 + parameters.shift.unsqueeze(1) - 0.5 * gain
    width_hu = width_hu / gain
    return lower_hu - offset * width_hu, width_hu, offset.clamp(0, 1), (gain + offset).clamp(0, 1)


def change_contrast(views: Tensor, parameters: IntensityParameters) -> Tensor:
    """Apply gain about the middle of the window, and shift.

    Args:
        views: (B, C, Z, Y, X) float32 in [0, 1].
        parameters: one value per scan.

    Returns:
        (B, C, Z, Y, X) float32 in [0, 1].
    """
    gain, shift = (
        drawn.to(views, non_blocking=True).view(-1, 1, 1, 1, 1) for drawn in (parameters.gain, parameters.shift)
    )
    return ((views - 0.5).mul_(gain).add_(0.5).add_(shift)).clamp_(0, 1)


def bend(views: Tensor, parameters: IntensityParameters) -> Tensor:
    """Raise views (B, C, Z, Y, X) float32 in [0, 1] to their scans' gamma, in place; return them."""
    bent = parameters.gamma != 1
    for rows in together(views):
        if bool(bent[rows].any()):
            gamma = parameters.gamma[rows].to(views, non_blocking=True)
            views[rows].pow_(gamma.view(-1, 1, 1, 1, 1))
    return views
