"""What a network sees of a scan: how many voxels, through which windows.

A cache holds either HU, which are windowed here on the device, or windows already (preset `fmhct`), which pass through.
B scans, C windows, Z, Y, X voxels.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fmct.console.errors import UsageError
from fmct.data.presets import AnySettings, FmhctSettings
from fmct.experiment.config import Config
from fmct.views.crops import Crop, identity
from fmct.views.foreground import FOREGROUND_HU, foreground_patches
from fmct.views.intensity import IntensityParameters, add_noise, bend, change_contrast, contrast_of_windows
from fmct.views.spatial import AIR_HU, sample
from fmct.views.windows import BONE, BRAIN, SUBDURAL, Window, levels_and_widths, windows, windows_per_scan


class InputConfig(Config):
    """Size and channels of the network's input."""

    voxels: int = Field(96, gt=0, description="side of the cube that the network sees")
    windows: tuple[Window, ...] = Field(
        (BRAIN, SUBDURAL, BONE), min_length=1, description="one channel per window: brain, subdural, bone by default"
    )

    @property
    def channels(self) -> int:
        """Number of input channels."""
        return len(self.windows)

    def view(self, volumes: Tensor, crop: Crop, voxels: int | None = None) -> Tensor:
        """Sample a view of each scan, windowed.

        Args:
            volumes: (B, 1, Z, Y, X) int16 or float32, Hounsfield units; or (B, C, Z, Y, X) float16, windows already.
            crop: what the views show, anywhere in the volumes.
            voxels: side of the view, if not the configured one.

        Returns:
            (B, C, voxels, voxels, voxels) float32 in [0, 1].

        Raises:
            UsageError: when windowed volumes have another number of windows.
        """
        return self.shown(self.sampled(volumes, crop, voxels), volumes)

    def sampled(
        self,
        volumes: Tensor,
        crop: Crop,
        voxels: int | None = None,
        *,
        boxes: Tensor | None = None,
        blur_voxels: Tensor | None = None,
    ) -> Tensor:
        """Sample a view of each scan as the cache has it, for `shown` and `foreground`.

        Args:
            volumes: as `view` takes them.
            crop: what the views show.
            voxels: side of the views, if not the configured one.
            boxes: (B, 3, 2) where the views shall lie; None: anywhere in the volumes.
            blur_voxels: (B,) standard deviations of a Gaussian over each view; None: none.

        Returns:
            (B, 1, voxels, voxels, voxels) float32, Hounsfield units; or (B, C, ...) windows in [0, 1].

        Raises:
            UsageError: as `view`.
        """
        windowed = is_windowed(volumes)
        if windowed:
            self._check_channels(volumes)
        outside = 0.0 if windowed else AIR_HU
        return sample(volumes, crop, voxels or self.voxels, boxes=boxes, outside=outside, blur_voxels=blur_voxels)

    def shown(self, sampled: Tensor, volumes: Tensor, change: IntensityParameters | None = None) -> Tensor:
        """Window what was sampled of `volumes`, unless it is windows already: (B, C, ...) float32 in [0, 1].

        Args:
            sampled: from `sampled`; stays as it is.
            volumes: what was sampled.
            change: how intensities are changed, but for smoothing, which `sampled` has done; None: not at all.
        """
        if is_windowed(volumes):
            return sampled if change is None else bend(change_contrast(sampled, change), change)
        if change is None:
            return windows(sampled, self.windows)
        level_hu, width_hu = levels_and_widths(self.windows)
        width_hu = width_hu * change.width_factor
        lower_hu = level_hu + change.level_shift_hu - width_hu / 2
        seen = contrast_of_windows(lower_hu, width_hu, change)
        return bend(windows_per_scan(add_noise(sampled, change), *seen), change)

    def foreground(self, sampled: Tensor, volumes: Tensor, patch_zyx: tuple[int, int, int]) -> Tensor:
        """Mark the patches of a view that aren't air: any voxel above -700 HU.

        Volumes that went through windows before they were averaged have no HU any more. Of those the first window
        that tells air from tissue is asked instead, at the value that it gives -700 HU: a voxel partly of tissue may
        then count as tissue where the mean of its HU would not.

        Args:
            sampled: from `sampled`.
            volumes: what was sampled.
            patch_zyx: voxels of a patch along each axis.

        Returns:
            (B, N) bool, see `fmct.views.foreground.foreground_patches`.

        Raises:
            UsageError: when no window of windowed volumes has -700 HU within it.
        """
        if not is_windowed(volumes):
            return foreground_patches(sampled, patch_zyx)
        for channel, window in enumerate(self.windows):
            value = (FOREGROUND_HU - window.level_hu) / window.width_hu + 0.5
            if 0 < value < 1:
                return foreground_patches(sampled[:, channel : channel + 1], patch_zyx, value)
        raise UsageError(
            f"the volumes are windows, and none of them tells {FOREGROUND_HU:g} HU from air",
            "the cache and the task's `foreground`",
            "set foreground to false, or use a cache of HU (preset isotropic)",
        )

    def whole(self, volumes: Tensor) -> Tensor:
        """Show the whole volume: what evaluation and embedding see, with nothing drawn at random.

        Args:
            volumes: as `view` takes them; windowed ones of the configured size keep every bit.

        Returns:
            (B, C, voxels, voxels, voxels) float32 in [0, 1].

        Raises:
            UsageError: as `view`.
        """
        if is_windowed(volumes) and set(volumes.shape[2:]) == {self.voxels}:
            self._check_channels(volumes)
            return volumes.float()
        return self.view(volumes, identity(len(volumes)))

    def check_preprocessing(self, settings: AnySettings) -> None:
        """Check that volumes which are windowed already went through these windows.

        Raises:
            UsageError: when they went through others.
        """
        here = tuple((window.level_hu, window.width_hu) for window in self.windows)
        if isinstance(settings, FmhctSettings) and settings.windows_hu != here:
            made, wanted = (
                ", ".join(f"{level:g}/{width:g}" for level, width in some) for some in (settings.windows_hu, here)
            )
            raise UsageError(
                f"the volumes were made with the windows {made}, and the network's are {wanted}",
                f"the preset {settings.preset} and input.windows",
                "set input.windows to the volumes' windows (level/width), in their order",
            )

    def _check_channels(self, volumes: Tensor) -> None:
        if volumes.shape[1] != self.channels:
            raise UsageError(
                f"the volumes hold {volumes.shape[1]} windows, and the network takes {self.channels}",
                "the volumes and input.windows",
                "use a cache and weights made for each other",
            )


def is_windowed(volumes: Tensor) -> bool:
    """Tell whether volumes are windows already: those are kept in half precision, HU never are."""
    return volumes.is_floating_point() and volumes.itemsize == 2
