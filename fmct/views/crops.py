"""Random resized crops with small rotations and left-right flips: what a view shows of a volume.

B scans. What is drawn is kept on the host, in unit numbers; it becomes a place once the scan's head is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from fmct.console.errors import UsageError
from fmct.experiment.config import Config

SHARE = (0.5, 1.0)


@dataclass(frozen=True)
class Crop:
    """What was drawn for each scan, on the host.

    Attributes:
        share: (B,) float64, side of the view as a share of the volume's.
        where_zyx: (B, 3) float64 in [0, 1], from the lowest to the highest place that the view may have.
        rotation_deg_zyx: (B, 3) float64, rotations about the z, y and x axes, degrees.
        flip: (B,) bool, mirrored left-right.
    """

    share: Tensor
    where_zyx: Tensor
    rotation_deg_zyx: Tensor
    flip: Tensor

    @property
    def turned(self) -> Tensor:
        """(B,) bool: whose axes aren't the volume's."""
        return (self.rotation_deg_zyx != 0).any(1)

    def of(self, rows: Tensor) -> Crop:
        """Return what was drawn for some of the scans."""
        return Crop(self.share[rows], self.where_zyx[rows], self.rotation_deg_zyx[rows], self.flip[rows])

    def center_zyx(self, boxes: Tensor | None = None) -> Tensor:
        """Place the crops: along each axis within the box where they are smaller, centered on it where they are larger.

        Args:
            boxes: (B, 3, 2) from `fmct.views.head_box.head_box`, on any device; None: the whole volumes.

        Returns:
            (B, 3) where the views' centers lie, from -1 to 1 across the volume; on the boxes' device, as float32.
        """
        whole = torch.tensor([-1.0, 1.0]).expand(len(self.share), 3, 2)
        boxes = whole if boxes is None else boxes
        low, high = boxes.unbind(2)
        share, where = (drawn.to(low, non_blocking=True) for drawn in (self.share.unsqueeze(1), self.where_zyx))
        room = ((high - low) / 2 - share).clamp(min=0)
        return (low + high) / 2 + room * (2 * where - 1)


def identity(batch: int) -> Crop:
    """Return crops that show whole volumes as they are."""
    share, zero = torch.ones(batch, dtype=torch.float64), torch.zeros(batch, 3, dtype=torch.float64)
    return Crop(share, zero + 0.5, zero, torch.zeros(batch, dtype=torch.bool))


class CropConfig(Config):
    """Where a view may lie and how it may be turned."""

    share: tuple[float, float] | None = Field(
        SHARE, description="least and greatest side, as a share of the volume's; null with side_mm"
    )
    side_mm: tuple[float, float] | None = Field(
        None, description="least and greatest side, mm, instead of share; needs volumes of the preset isotropic"
    )
    place: Literal["head", "volume"] = Field(
        "head", description="head: crops lie within the box of what is above -700 HU, centered on it where larger"
    )
    rotation_deg: float = Field(10.0, ge=0, le=45, description="greatest rotation about each axis, degrees")
    rotation_probability: float = Field(
        1.0, ge=0, le=1, description="probability of a rotation; views without one are made several times faster"
    )
    flip_probability: float = Field(0.5, ge=0, le=1, description="probability of a left-right flip")

    @model_validator(mode="before")
    @classmethod
    def _side_replaces_share(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("side_mm") is not None:
            return {"share": None, **values}
        return values

    @model_validator(mode="after")
    def _one_range_of_sizes(self) -> CropConfig:
        if (self.share is None) == (self.side_mm is None):
            raise ValueError("give either share or side_mm, and null for the other")
        for name, (low, high) in self._sides().items():
            if not 0 < low <= high:
                raise ValueError(f"{name} must satisfy 0 < least <= greatest, not {low} and {high}")
        if self.share is not None and self.share[1] > 1:
            raise ValueError(f"share must satisfy greatest <= 1, not {self.share[1]}")
        return self

    def _sides(self) -> dict[str, tuple[float, float]]:
        sides = {"share": self.share, "side_mm": self.side_mm}
        return {name: side for name, side in sides.items() if side is not None}

    def draw(self, generators: Sequence[np.random.Generator], volume_mm: float | None = None) -> Crop:
        """Draw one crop per scan.

        Args:
            generators: one per scan, so that a scan's views don't depend on its batch mates.
            volume_mm: side of the volumes, mm; None where that isn't known.

        Raises:
            UsageError: when sizes are in mm, and the volumes' isn't known.
        """
        drawn = np.stack([g.uniform(size=9) for g in generators])
        low, high = self._least_and_greatest_share(volume_mm)
        turned = drawn[:, 8] < self.rotation_probability
        return Crop(
            share=torch.from_numpy(low + (high - low) * drawn[:, 0]),
            where_zyx=torch.from_numpy(drawn[:, 1:4]),
            rotation_deg_zyx=torch.from_numpy(self.rotation_deg * (2 * drawn[:, 4:7] - 1) * turned[:, None]),
            flip=torch.from_numpy(drawn[:, 7] < self.flip_probability),
        )

    def _least_and_greatest_share(self, volume_mm: float | None) -> tuple[float, float]:
        if self.side_mm is None:
            return self.share or SHARE
        if volume_mm is None:
            raise UsageError(
                "crops in mm need a spacing on all axes, and these volumes have none",
                "side_mm of the task's crops",
                "use a cache of the preset isotropic, or give the crops' size as share",
            )
        return self.side_mm[0] / volume_mm, self.side_mm[1] / volume_mm
