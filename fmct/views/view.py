"""A view of each scan of a batch: HU first, from which its windows are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fmct.views.intensity import IntensityParameters, add_noise, change_intensity
from fmct.views.windows import Window, levels_and_widths, windows_per_scan


@dataclass(frozen=True)
class View:
    """A view of each of B scans.

    Attributes:
        sampled: (B, 1, V, V, V) float32, HU; or (B, C, V, V, V), windows already, of volumes that hold no HU.
        levels: the C windows; empty where `sampled` has them already.
        change: what was drawn for the scans' intensities; its smoothing is done.
    """

    sampled: Tensor
    levels: Sequence[Window]
    change: IntensityParameters

    @property
    def hu(self) -> Tensor | None:
        """(B, 1, V, V, V) float32, smoothed and without noise; None where the volumes hold no HU."""
        return self.sampled if self.levels else None

    def windows(self) -> Tensor:
        """Show the view through its windows: (B, C, V, V, V) float32 in [0, 1], a new tensor."""
        if not self.levels:
            return change_intensity(self.sampled.clone(), self.change)
        level_hu, width_hu = levels_and_widths(self.levels)
        shown = windows_per_scan(
            add_noise(self.sampled, self.change),
            level_hu + self.change.level_shift_hu,
            width_hu * self.change.width_factor,
        )
        return change_intensity(shown, self.change)
