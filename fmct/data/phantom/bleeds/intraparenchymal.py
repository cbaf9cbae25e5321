"""Bleeds into the brain's tissue (IPH)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from fmct.data.phantom.blob import Blob, draw_blob
from fmct.data.phantom.brain import BrainPoints
from fmct.data.phantom.findings import Finding, register
from fmct.data.phantom.head import HeadParameters, Triple
from fmct.data.phantom.shapes import Array, mix, share_inside, smooth_step

# Where bleeds into the brain are found, right side of the average head, with how common each place is.
IPH_SITES_MM: tuple[tuple[Triple, float], ...] = (
    ((27.0, 0.0, 4.0), 0.40),  # putamen
    ((15.0, -17.0, 8.0), 0.12),  # thalamus
    ((28.0, 28.0, 24.0), 0.14),  # frontal lobe
    ((32.0, -38.0, 32.0), 0.14),  # parietal lobe
    ((35.0, -32.0, 2.0), 0.10),  # temporal lobe
    ((24.0, -66.0, 12.0), 0.10),  # occipital lobe
)
EDEMA_HU = 18.0


@register
class IPH(Finding):
    """Blood in the brain's tissue: an irregular body with a thin rim of edema, which pushes its surroundings apart."""

    name: ClassVar[str] = "IPH"
    labels: ClassVar[tuple[str, ...]] = ("IPH",)
    bleed: ClassVar[bool] = True
    severity_names: ClassVar[tuple[str, ...]] = ("IPH_ml",)

    blob: Blob
    blood_hu: float = Field(62.0, ge=55, le=75)
    rim_mm: float = Field(3.0, ge=0)

    @property
    def side(self) -> int:
        """1 right, -1 left."""
        return 1 if self.blob.center_mm[0] > 0 else -1

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw side, place, volume (3 to 25 mL, mostly small) and density; a quarter are subtle: small and paler."""
        place = draw_place(rng, head)
        subtle = rng.random() < 0.25
        volume = rng.uniform(3.0, 5.0) if subtle else 3.0 + 22.0 * rng.beta(1.3, 2.0)
        return cls(
            blob=draw_blob(rng, place, float(volume)),
            blood_hu=float(rng.uniform(55.0, 59.0) if subtle else rng.uniform(58.0, 75.0)),
            rim_mm=float(rng.uniform(1.5, 4.5)),
        )

    def severity(self) -> dict[str, float]:
        """Return the volume of blood in mL."""
        return {"IPH_ml": self.blob.volume_ml}

    def sides(self) -> frozenset[int]:
        """Return the side of its center."""
        return frozenset({self.side})

    def displacement(self, head: HeadParameters, points_mm: Array, depth_mm: Array) -> Array | None:
        """Push tissue away from the center, as blood of this volume makes room; neither midline nor skull move."""
        radius = np.float32(self.blob.radius_mm)
        near = self.blob.near(points_mm, margin_mm=3.0 * self.blob.radius_mm)
        if not near.size:
            return None
        outward = points_mm[:, near] - np.array(self.blob.center_mm, np.float32)[:, None]
        distance = np.maximum(np.sqrt((outward**2).sum(0)), np.float32(1.0))
        room = np.float32(0.6) * radius**3 * np.exp(-((distance / (np.float32(2.2) * radius)) ** 2))
        before = np.cbrt(np.maximum(distance**3 - room, np.float32(0.05) * distance**3))
        free = smooth_step(self.side * points_mm[0, near], 1.0, 14.0) * smooth_step(depth_mm[near], 1.0, 14.0)
        moved = np.zeros_like(points_mm)
        moved[:, near] = outward * ((distance - before) / distance * free)
        return moved

    def paint(self, head: HeadParameters, hu: Array, at: BrainPoints) -> Array | None:
        """Lay rim and blood into `hu`; return the blood's share of each voxel."""
        near = self.blob.near(at.points_mm, margin_mm=2.0 * self.rim_mm)
        if not near.size:
            return None
        distance, inside = self.blob.distance(at.points_mm[:, near]), share_inside(-at.depth_mm[near], at.edge_mm)
        part = hu[near]
        rim = inside * (1.0 - smooth_step(distance, 0.4 * self.rim_mm, 1.6 * self.rim_mm))
        part += rim * np.float32(0.9) * (np.minimum(part, np.float32(EDEMA_HU)) - part)
        blood = share_inside(distance, at.edge_mm) * inside
        mix(part, self.blood_hu, blood)
        hu[near] = part
        share = np.zeros_like(hu)
        share[near] = blood
        return share


@register
class LargeIPH(IPH):
    """A bleed into the brain's tissue that is past 20 mL, as two in five are in those who are scanned for a stroke."""

    name: ClassVar[str] = "LargeIPH"

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw side, place, volume (20 to 80 mL, mostly up to 50) and density."""
        place = draw_place(rng, head)
        return cls(
            blob=draw_blob(rng, place, float(20.0 + 60.0 * rng.beta(1.2, 2.4))),
            blood_hu=float(rng.uniform(58.0, 75.0)),
            rim_mm=float(rng.uniform(2.5, 6.0)),
        )


def draw_place(rng: np.random.Generator, head: HeadParameters) -> Triple:
    """Draw where a bleed has its center, in the head's frame."""
    places, weights = zip(*IPH_SITES_MM, strict=True)
    place = np.array(places[int(rng.choice(len(places), p=weights))]) + rng.normal(0.0, 2.0, 3)
    place *= np.array(head.scale) * (1 if rng.random() < 0.5 else -1, 1, 1)
    return float(place[0]), float(place[1]), float(place[2])
