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
from fmct.views.crops import Crop
from fmct.views.spatial import AIR_HU, sample
from fmct.views.windows import BONE, BRAIN, SUBDURAL, Window, windows


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

    def sample(
        self,
        volumes: Tensor,
        crop: Crop,
        voxels: int | None = None,
        *,
        boxes: Tensor | None = None,
        blur_voxels: Tensor | None = None,
    ) -> Tensor:
        """Sample a view of each scan.

        Args:
            volumes: (B, 1, Z, Y, X) int16 or float32, Hounsfield units; or (B, C, Z, Y, X) float16, windows already.
            crop: what the views show.
            voxels: side of the views, if not the configured one.
            boxes: (B, 3, 2) where the views shall lie; None: anywhere in the volume.
            blur_voxels: (B,) standard deviations of a Gaussian over each view; None: none.

        Returns:
            (B, 1, voxels, voxels, voxels) float32, HU; or (B, C, voxels, voxels, voxels), windows in [0, 1].

        Raises:
            UsageError: when windowed volumes have another number of windows.
        """
        windowed = is_windowed(volumes)
        if windowed:
            self._check_channels(volumes)
        outside = 0.0 if windowed else AIR_HU
        return sample(volumes, crop, voxels or self.voxels, boxes=boxes, outside=outside, blur_voxels=blur_voxels)

    def whole(self, volumes: Tensor) -> Tensor:
        """Show the whole volume: what evaluation and embedding see, with nothing drawn at random.

        Args:
            volumes: as `sample` takes them; windowed ones of the configured size keep every bit.

        Returns:
            (B, C, voxels, voxels, voxels) float32 in [0, 1].

        Raises:
            UsageError: as `sample`.
        """
        if not is_windowed(volumes):
            return windows(self.sample(volumes, Crop.whole(len(volumes))), self.windows)
        self._check_channels(volumes)
        if set(volumes.shape[2:]) == {self.voxels}:
            return volumes.float()
        return self.sample(volumes, Crop.whole(len(volumes)))

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
