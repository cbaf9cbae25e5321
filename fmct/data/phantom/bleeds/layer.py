"""What subdural and epidural bleeds have in common: a layer of blood under the vault that presses the brain inward."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from fmct.data.phantom.brain import BrainPoints
from fmct.data.phantom.findings import Finding
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.shapes import Array, Indices, mix, share_between, smooth_step
from fmct.data.phantom.skull import VAULT_CENTER_MM

LOWEST_MM = -45.0  # height under which no layer presses
FADING_MM = 22.0  # depth of brain over which its pressure fades


def flattened_mm(head: HeadParameters, thickness_mm: Array) -> Array:
    """Return how much of the fluid over the gyri a layer presses away, (N,) mm: nearly all of it under a thick one."""
    flattened: Array = np.minimum(np.float32(0.85 * head.gap_mm), np.float32(0.5) * thickness_mm)
    return flattened


class SurfaceLayer(Finding):
    """A layer of blood inside the vault of one side; kinds differ in how its thickness falls off.

    Directions are seen from the vault's center: azimuth 0 lateral, positive toward the forehead; elevation above the
    horizontal plane.
    """

    bleed: ClassVar[bool] = True

    side: Literal[-1, 1] = Field(description="1 right, -1 left")
    thickness_mm: float = Field(gt=0, description="where it is thickest")
    azimuth_deg: float = Field(0.0, description="middle of the layer, 0 lateral, positive toward the forehead")
    elevation_deg: float = Field(20.0, description="middle of the layer above the horizontal plane")
    half_length_deg: float = Field(gt=0)
    half_height_deg: float = Field(gt=0)
    blood_hu: float = Field(60.0, gt=0)

    def sides(self) -> frozenset[int]:
        """Return the one side."""
        return frozenset({int(self.side)})

    @abstractmethod
    def profile(self, outward: Array) -> Array:
        """Return the thickness in directions (3, N) from the vault's center against the greatest, (N,) in [0, 1]."""

    def contents_hu(self, head: HeadParameters, points_mm: Array) -> Array | float:
        """Return the HU of the blood at (3, N) points of the head's frame."""
        return self.blood_hu

    def yielding_mm(self, head: HeadParameters, thickness_mm: Array) -> Array | float:
        """Return how much of the thickness, (N,) mm, comes out of the fluid beneath instead of pressing brain."""
        return 0.0

    def _thickness(self, head: HeadParameters, points_mm: Array) -> tuple[Array, Array]:
        """Return the layer's thickness over each point, (N,) mm, and the direction outward there, (3, N)."""
        outward = points_mm - (np.array(VAULT_CENTER_MM, np.float32) * np.array(head.scale, np.float32))[:, None]
        outward = outward / np.maximum(np.sqrt((outward**2).sum(0)), np.float32(1.0))
        return np.float32(self.thickness_mm) * self.profile(outward), outward

    def displacement(self, head: HeadParameters, points_mm: Array, depth_mm: Array) -> Array | None:
        """Push the brain inward by the thickness at its surface, fading with depth."""
        near = np.flatnonzero((points_mm[0] * self.side > 0) & (points_mm[2] > LOWEST_MM))
        if not near.size:
            return None
        thickness, outward = self._thickness(head, points_mm[:, near])
        under = np.maximum(depth_mm[near] - thickness, 0.0)
        fading = np.exp(-under * np.float32(1 / FADING_MM)) * smooth_step(np.abs(points_mm[0, near]), 0.0, 14.0)
        moved = np.zeros_like(points_mm)
        moved[:, near] = -outward * ((thickness - self.yielding_mm(head, thickness)) * fading)
        return moved

    def paint(self, head: HeadParameters, hu: Array, at: BrainPoints) -> Array | None:
        """Lay the layer into `hu`; return the blood's share of each voxel."""
        near: Indices = np.flatnonzero(
            (at.points_mm[0] * self.side > 0) & (at.depth_mm < self.thickness_mm + at.edge_mm)
        )
        if not near.size:
            return None
        points = at.points_mm[:, near]
        thickness, _ = self._thickness(head, points)
        blood = share_between(at.depth_mm[near], 0.0, thickness, at.edge_mm)
        part = hu[near]
        # Within the edge to the bone the cavity's contents stand for themselves: the bone is mixed in afterwards.
        weight = np.where(at.depth_mm[near] < 0.5 * at.edge_mm, np.sign(blood), blood)
        mix(part, self.contents_hu(head, points), weight)
        hu[near] = part
        share = np.zeros_like(hu)
        share[near] = blood
        return share
