"""What a network sees of a scan: how many voxels, through which windows."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fmct.experiment.config import Config
from fmct.views.spatial import identity, sample
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

    def view(self, hu: Tensor, theta: Tensor, voxels: int | None = None) -> Tensor:
        """Sample a view of each scan and window it.

        Args:
            hu: (B, 1, Z, Y, X) int16, Hounsfield units.
            theta: (B, 3, 4) affine maps.
            voxels: side of the view, if not the configured one.

        Returns:
            (B, C, voxels, voxels, voxels) float32 in [0, 1].
        """
        return windows(sample(hu, theta, voxels or self.voxels), self.windows)

    def whole(self, hu: Tensor) -> Tensor:
        """Show the whole volume: what evaluation and embedding see, with nothing drawn at random.

        Args:
            hu: (B, 1, Z, Y, X) int16, Hounsfield units.

        Returns:
            (B, C, voxels, voxels, voxels) float32 in [0, 1].
        """
        return self.view(hu, identity(len(hu)))
