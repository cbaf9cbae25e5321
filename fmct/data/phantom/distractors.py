"""What is bright or dark in a brain and no hemorrhage: it occurs with and without findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from fmct.data.phantom.blob import Blob, draw_blob
from fmct.data.phantom.brain import BrainPoints
from fmct.data.phantom.findings import Finding, register
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.shapes import Array, capsule, ellipsoid, mix, share_inside, smooth_step

INFARCT_SITES_MM = ((30.0, 30.0, 20.0), (38.0, -20.0, 30.0), (34.0, -50.0, 8.0), (24.0, -72.0, 8.0))


@register
class Calcification(Finding):
    """Calcified choroid plexus in the atria and pineal gland: as bright as blood and brighter, and normal."""

    name: ClassVar[str] = "Calcification"

    choroid_mm: float = Field(ge=0, description="radius in the right atrium, 0 for none")
    asymmetry: float = Field(0.0, ge=-0.9, le=0.9, description="how much larger the right one is than the left one")
    pineal_mm: float = Field(ge=0, description="radius, 0 for none")
    calcium_hu: float = Field(180.0, ge=80)

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw sizes and density: one side often more than the other."""
        return cls(
            choroid_mm=float(rng.uniform(1.5, 3.2)),
            asymmetry=float(rng.uniform(-0.7, 0.7)),
            pineal_mm=float(rng.uniform(1.5, 3.0)) if rng.random() < 0.7 else 0.0,
            calcium_hu=float(rng.uniform(100.0, 350.0)),
        )

    def paint(self, head: HeadParameters, hu: Array, at: BrainPoints) -> Array | None:
        """Lay the calcium where plexus and gland are, moved with the tissue; return its share of each voxel."""
        x, y, z = at.template_mm
        near = np.flatnonzero((np.abs(x) < 35.0) & (y < -15.0) & (y > -65.0) & (np.abs(z - 5.0) < 25.0))
        if not near.size:
            return None
        template = at.template_mm[:, near]
        distance = np.full(near.size, 99.0, np.float32)
        for side in (1.0, -1.0):
            radius = self.choroid_mm * (1.0 + side * self.asymmetry)
            line = ((side * 20.0, -38.0, 13.0), (side * 25.0, -43.0, 6.0))
            if radius > 0.5:
                distance = np.minimum(distance, capsule(template, *line, radius, 0.6 * radius))
        if self.pineal_mm > 0.0:
            distance = np.minimum(distance, ellipsoid(template, (0.0, -33.0, 0.0), (self.pineal_mm,) * 3))
        calcium = share_inside(distance, at.edge_mm)
        part = hu[near]
        mix(part, self.calcium_hu, calcium)
        hu[near] = part
        share = np.zeros_like(hu)
        share[near] = calcium
        return share


@register
class OldInfarct(Finding):
    """A patch of tissue lost long ago, dark and without mass effect."""

    name: ClassVar[str] = "OldInfarct"

    blob: Blob
    tissue_hu: float = Field(18.0, ge=5, le=28)

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw side, place and volume (5 to 35 mL)."""
        place = np.array(INFARCT_SITES_MM[int(rng.integers(len(INFARCT_SITES_MM)))]) + rng.normal(0.0, 3.0, 3)
        place *= np.array(head.scale) * (1 if rng.random() < 0.5 else -1, 1, 1)
        center = (float(place[0]), float(place[1]), float(place[2]))
        return cls(blob=draw_blob(rng, center, float(rng.uniform(5.0, 35.0))), tissue_hu=float(rng.uniform(12.0, 24.0)))

    def paint(self, head: HeadParameters, hu: Array, at: BrainPoints) -> Array | None:
        """Darken the tissue with a soft edge; return the share of each voxel inside the patch."""
        near = self.blob.near(at.points_mm, margin_mm=3.0)
        if not near.size:
            return None
        distance, inside = self.blob.distance(at.points_mm[:, near]), share_inside(-at.depth_mm[near], at.edge_mm)
        part = hu[near]
        patch = inside * (1.0 - smooth_step(distance, -2.0, 2.0))
        part += patch * (np.minimum(part, np.float32(self.tissue_hu)) - part)
        hu[near] = part
        share = np.zeros_like(hu)
        share[near] = share_inside(distance, at.edge_mm) * inside
        return share
