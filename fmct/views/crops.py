"""Random resized crops with small rotations and left-right flips: what a view shows of a volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from fmct.experiment.config import Config
from fmct.views.spatial import affine


class CropConfig(Config):
    """Where a view may lie and how it may be turned."""

    share: tuple[float, float] = Field((0.5, 1.0), description="least and greatest side, as a share of the volume's")
    rotation_deg: float = Field(10.0, ge=0, le=45, description="greatest rotation about each axis, degrees")
    flip_probability: float = Field(0.5, ge=0, le=1, description="probability of a left-right flip")

    @model_validator(mode="after")
    def _share_is_a_range(self) -> CropConfig:
        low, high = self.share
        if not 0 < low <= high <= 1:
            raise ValueError(f"share must satisfy 0 < least <= greatest <= 1, not {low} and {high}")
        return self

    def draw(self, generators: Sequence[np.random.Generator]) -> Tensor:
        """Draw one crop per scan.

        Args:
            generators: one per scan, so that a scan's views don't depend on its batch mates.

        Returns:
            (B, 3, 4) affine maps for `fmct.views.spatial.sample`; unrotated crops lie within the volume.
        """
        drawn = np.stack([g.uniform(size=8) for g in generators])
        low, high = self.share
        share = low + (high - low) * drawn[:, 0]
        center = (1 - share[:, None]) * (2 * drawn[:, 1:4] - 1)
        rotation = self.rotation_deg * (2 * drawn[:, 4:7] - 1)
        flip = drawn[:, 7] < self.flip_probability
        return affine(
            torch.from_numpy(center), torch.from_numpy(share), torch.from_numpy(rotation), torch.from_numpy(flip)
        )
