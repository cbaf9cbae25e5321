"""Anomalies planted into views: places of soft tissue made brighter or darker, or replaced by tissue from elsewhere.

What is planted knows no disease: an ellipsoid with a rough border, anywhere where there is soft tissue, of any size and
direction. It is changed by some HU, as density changes, or shows another place of the same head, as CutPaste (Li et
al. 2021, arXiv 2104.04015) and, blended, foreign patch interpolation (Tan et al. 2020, arXiv 2011.04197) have it.
Parameters are drawn on the host from one generator per scan, so that what a scan shows depends on no other.
B scans, Z, Y, X voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, field_validator
from torch import Tensor

from fmct.experiment.config import Config

ROUGHNESS_GRID = 4
"""Values along each axis, over an anomaly's box, of the smooth noise that its border follows."""
REACH = 1.6
"""Half of an anomaly's box over its greatest radius: what lies beyond has changed by nothing to speak of."""


@dataclass(frozen=True)
class Anomaly:
    """One anomaly, before it is known where soft tissue is.

    Attributes:
        place: in [0, 1), which of the view's voxels of soft tissue is its middle.
        radii: (3,) as shares of the view's side.
        axes: (3, 3) rotation, its own axes in columns.
        roughness: (G, G, G) noise by which the border lies further in or out, in radii.
        sharpness: how steeply it ends.
        offset_hu: added to soft tissue; 0 where tissue from elsewhere is shown.
        source: (3,) where that is from, as shares of the view's side, from the middle.
        opacity: of that tissue.
    """

    place: float
    radii: NDArray[np.float64]
    axes: NDArray[np.float64]
    roughness: NDArray[np.float64]
    sharpness: float
    offset_hu: float
    source: NDArray[np.float64]
    opacity: float


class PlantingConfig(Config):
    """How many anomalies there are, how large, and how far from what was there."""

    count: tuple[int, int] = Field((1, 3), description="least and greatest number in a view that has any")
    plain_probability: float = Field(0.1, ge=0, lt=1, description="of a view without any")
    radius: tuple[float, float] = Field(
        (0.042, 0.19), description="least and greatest, as a share of the view's side: 9 and 41 mm of 216"
    )
    offset_hu: tuple[float, float] = Field((8.0, 50.0), description="least and greatest change, up or down")
    paste_probability: float = Field(
        0.25, ge=0, le=1, description="of one that shows another place of the same head, rather than changed HU"
    )
    roughness: float = Field(0.25, ge=0, le=1, description="deviation of the border, in radii")
    soft_hu: tuple[float, float] = Field(
        (-15.0, 90.0), description="HU of soft tissue: where anomalies are, and all that an offset changes"
    )

    @field_validator("count", "radius", "offset_hu", "soft_hu")
    @classmethod
    def _in_order(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if pair[0] > pair[1]:
            raise ValueError(f"the least, {pair[0]:g}, is above the greatest, {pair[1]:g}")
        return pair

    @field_validator("count", "radius", "offset_hu")
    @classmethod
    def _above_nothing(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if pair[0] <= 0:
            raise ValueError(f"the least must be above 0, not {pair[0]:g}")
        return pair

    def draw(self, generators: Sequence[np.random.Generator]) -> list[list[Anomaly]]:
        """Draw each scan's anomalies: sizes and changes evenly on a logarithmic scale.

        Args:
            generators: one per scan.
        """
        return [self._of_one(generator) for generator in generators]

    def _of_one(self, generator: np.random.Generator) -> list[Anomaly]:
        if generator.random() < self.plain_probability:
            return []
        return [self._one(generator) for _ in range(int(generator.integers(self.count[0], self.count[1] + 1)))]

    def _one(self, generator: np.random.Generator) -> Anomaly:
        radii = log_uniform(generator, self.radius, 3)
        pasted = generator.random() < self.paste_probability
        direction = generator.normal(size=3)
        return Anomaly(
            place=generator.random(),
            radii=radii,
            axes=np.linalg.qr(generator.normal(size=(3, 3))).Q,
            roughness=self.roughness * generator.normal(size=(ROUGHNESS_GRID,) * 3),
            sharpness=generator.uniform(3, 10),
            offset_hu=0.0
            if pasted
            else float(generator.choice([-1, 1]) * log_uniform(generator, self.offset_hu, 1)[0]),
            source=direction / np.linalg.norm(direction) * generator.uniform(1, 3) * radii.max(),
            opacity=generator.uniform(0.4, 1),
        )

    def plant(self, hu: Tensor, drawn: Sequence[Sequence[Anomaly]]) -> Tensor:
        """Plant each scan's anomalies into its view, one after the other.

        Args:
            hu: (B, 1, Z, Y, X) float32, Hounsfield units, of equal sides; stays as it is.
            drawn: by `draw`, for each scan.

        Returns:
            (B, 1, Z, Y, X) float32. A view without soft tissue stays as it is.
        """
        changed = hu.clone()
        soft = (hu[:, 0] >= self.soft_hu[0]) & (hu[:, 0] <= self.soft_hu[1])
        for scan, (anomalies, indices) in enumerate(zip(drawn, places_in(soft, drawn), strict=True)):
            for one, index in zip(anomalies, indices, strict=False):  # none where no tissue is soft
                self._plant_one(changed[scan, 0], hu[scan, 0], soft[scan], index, one)
        return changed

    def _plant_one(self, into_ZYX: Tensor, from_ZYX: Tensor, soft_ZYX: Tensor, index: int, one: Anomaly) -> None:
        """Plant one anomaly about the voxel of an index in row-major order, in place."""
        shape = into_ZYX.shape
        middle = np.array(np.unravel_index(index, shape))
        radii = one.radii * shape[-1]
        box = [
            np.arange(max(0, int(c - REACH * radii.max())), min(n, int(c + REACH * radii.max()) + 2))
            for c, n in zip(middle, shape, strict=True)
        ]
        here = tuple(slice(int(along[0]), int(along[-1]) + 1) for along in box)
        weight = weight_of(one, radii, [torch.from_numpy(a - c) for a, c in zip(box, middle, strict=True)])
        weight = weight.to(into_ZYX)
        if one.offset_hu:
            into_ZYX[here] += weight * soft_ZYX[here] * one.offset_hu
        else:
            shift = np.rint(one.source * shape[-1]).astype(int)
            there = [np.clip(a + s, 0, n - 1) for a, s, n in zip(box, shift, shape, strict=True)]
            tissue = from_ZYX[torch.meshgrid(*(torch.from_numpy(a).to(into_ZYX.device) for a in there), indexing="ij")]
            into_ZYX[here] = into_ZYX[here].lerp(tissue, weight * one.opacity)

    def changes(self, before: Tensor, after: Tensor, cell_voxels: int, least_hu: float) -> Tensor:
        """Say which cells of a view became brighter, and which darker.

        Args:
            before: (B, 1, Z, Y, X) Hounsfield units.
            after: the same with anomalies.
            cell_voxels: side of a cell; divides the view's.
            least_hu: of the change of a cell's mean that counts; HU beyond soft tissue count as its ends.

        Returns:
            (B, 2, Z / cell, Y / cell, X / cell) bool: brighter, darker.
        """
        mean = F.avg_pool3d(after.clamp(*self.soft_hu) - before.clamp(*self.soft_hu), cell_voxels)
        return torch.cat([mean > least_hu, mean < -least_hu], 1)


def log_uniform(generator: np.random.Generator, pair: tuple[float, float], size: int) -> NDArray[np.float64]:
    """Draw values whose logarithms are uniform between those of a least and a greatest."""
    return np.exp(generator.uniform(math.log(pair[0]), math.log(pair[1]), size))


def places_in(soft_BZYX: Tensor, drawn: Sequence[Sequence[Anomaly]]) -> list[list[int]]:
    """Find the middle voxel of each scan's anomalies, waiting for the device once.

    Args:
        soft_BZYX: (B, Z, Y, X) bool, soft tissue.
        drawn: each scan's anomalies.

    Returns:
        Indices of voxels in row-major order; none for a scan without soft tissue.
    """
    soft_BV = soft_BZYX.flatten(1)
    many = max(1, *(len(anomalies) for anomalies in drawn))
    share_BK = torch.zeros(len(drawn), many, dtype=torch.float64)
    for scan, anomalies in enumerate(drawn):
        share_BK[scan, : len(anomalies)] = torch.tensor([one.place for one in anomalies], dtype=torch.float64)
    ordinal_BV = soft_BV.cumsum(1)
    wanted_BK = (share_BK.to(soft_BV.device) * ordinal_BV[:, -1:]).long() + 1
    indices = torch.searchsorted(ordinal_BV, wanted_BK).tolist()
    return [
        [index for index in of_scan[: len(anomalies)] if index < soft_BV.shape[1]]
        for of_scan, anomalies in zip(indices, drawn, strict=True)
    ]


def weight_of(one: Anomaly, radii: NDArray[np.float64], offsets: Sequence[Tensor]) -> Tensor:
    """Return how much an anomaly counts at each voxel of a box: about 1 within, 0 outside, a half at its border.

    Args:
        one: the anomaly.
        radii: (3,) in voxels.
        offsets: of the box's voxels from the anomaly's middle along each axis.

    Returns:
        (z, y, x) float32 in [0, 1].
    """
    from_middle = torch.stack(torch.meshgrid(*(offset.float() for offset in offsets), indexing="ij"), -1)
    own = from_middle @ torch.from_numpy(one.axes / radii).float()
    noise = torch.from_numpy(one.roughness).float()[None, None]
    shape = own.shape[:3]
    border = 1 + F.interpolate(noise, size=shape, mode="trilinear", align_corners=True)[0, 0]
    return torch.sigmoid(one.sharpness * (border - own.norm(dim=-1)))
