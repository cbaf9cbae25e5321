"""Hemorrhages: intraparenchymal (IPH) and subdural (SDH)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from fmct.data.phantom.blob import Blob, draw_blob
from fmct.data.phantom.brain import BrainPoints
from fmct.data.phantom.findings import Finding, register
from fmct.data.phantom.head import HeadParameters, Triple
from fmct.data.phantom.shapes import Array, mix, share_between, share_inside, smooth_step
from fmct.data.phantom.skull import VAULT_CENTER_MM

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
        places, weights = zip(*IPH_SITES_MM, strict=True)
        place = np.array(places[int(rng.choice(len(places), p=weights))]) + rng.normal(0.0, 2.0, 3)
        place *= np.array(head.scale) * (1 if rng.random() < 0.5 else -1, 1, 1)
        subtle = rng.random() < 0.25
        volume = rng.uniform(3.0, 5.0) if subtle else 3.0 + 22.0 * rng.beta(1.3, 2.0)
        return cls(
            blob=draw_blob(rng, (float(place[0]), float(place[1]), float(place[2])), float(volume)),
            blood_hu=float(rng.uniform(55.0, 59.0) if subtle else rng.uniform(58.0, 75.0)),
            rim_mm=float(rng.uniform(1.5, 4.5)),
        )

    def severity(self) -> dict[str, float]:
        """Return the volume of blood in mL."""
        return {"IPH_ml": self.blob.volume_ml}

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
class SDH(Finding):
    """Blood between skull and brain over one hemisphere: a crescent that presses the brain inward."""

    name: ClassVar[str] = "SDH"
    labels: ClassVar[tuple[str, ...]] = ("SDH",)
    bleed: ClassVar[bool] = True
    severity_names: ClassVar[tuple[str, ...]] = ("SDH_mm",)

    side: Literal[-1, 1] = Field(description="1 right, -1 left")
    thickness_mm: float = Field(ge=3, le=12, description="where it is thickest")
    azimuth_deg: float = Field(0.0, description="middle of the crescent, 0 lateral, positive toward the forehead")
    elevation_deg: float = Field(20.0, description="middle of the crescent above the horizontal plane")
    half_length_deg: float = Field(55.0, gt=0, le=75)
    half_height_deg: float = Field(40.0, gt=0, le=55)
    blood_hu: float = Field(60.0, ge=50, le=70)

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw side, thickness (3 to 12 mm) and extent; about a third are thin."""
        half_length = float(rng.uniform(40.0, 65.0))
        return cls(
            side=1 if rng.random() < 0.5 else -1,
            thickness_mm=float(rng.uniform(3.0, 5.0) if rng.random() < 0.35 else rng.uniform(5.0, 12.0)),
            azimuth_deg=float(rng.uniform(-1.0, 1.0) * (75.0 - half_length)),
            elevation_deg=float(rng.uniform(12.0, 30.0)),
            half_length_deg=half_length,
            half_height_deg=float(rng.uniform(28.0, 45.0)),
            blood_hu=float(rng.uniform(50.0, 70.0)),
        )

    def severity(self) -> dict[str, float]:
        """Return the greatest thickness in mm."""
        return {"SDH_mm": self.thickness_mm}

    def _thickness(self, head: HeadParameters, points_mm: Array) -> tuple[Array, Array]:
        """Return the crescent's thickness over each point, (N,) mm, and the direction outward there, (3, N)."""
        outward = points_mm - (np.array(VAULT_CENTER_MM, np.float32) * np.array(head.scale, np.float32))[:, None]
        outward = outward / np.maximum(np.sqrt((outward**2).sum(0)), np.float32(1.0))
        lateral = np.float32(self.side) * outward[0]
        azimuth = np.degrees(np.arctan2(outward[1], lateral))
        elevation = np.degrees(np.arcsin(np.clip(outward[2], -1.0, 1.0)))
        along = ((azimuth - np.float32(self.azimuth_deg)) / np.float32(self.half_length_deg)) ** 2
        along += ((elevation - np.float32(self.elevation_deg)) / np.float32(self.half_height_deg)) ** 2
        profile = np.maximum(1.0 - along, 0.0) ** np.float32(0.7)
        return np.float32(self.thickness_mm) * profile, outward

    def displacement(self, head: HeadParameters, points_mm: Array, depth_mm: Array) -> Array | None:
        """Push the brain inward by the thickness at its surface, fading with depth."""
        near = np.flatnonzero((points_mm[0] * self.side > 0) & (points_mm[2] > -45.0))
        if not near.size:
            return None
        thickness, outward = self._thickness(head, points_mm[:, near])
        under = np.maximum(depth_mm[near] - thickness, 0.0)
        fading = np.exp(-under * np.float32(1 / 22.0)) * smooth_step(np.abs(points_mm[0, near]), 0.0, 14.0)
        moved = np.zeros_like(points_mm)
        moved[:, near] = -outward * (thickness * fading)
        return moved

    def paint(self, head: HeadParameters, hu: Array, at: BrainPoints) -> Array | None:
        """Lay the crescent into `hu`; return the blood's share of each voxel."""
        near = np.flatnonzero((at.points_mm[0] * self.side > 0) & (at.depth_mm < self.thickness_mm + at.edge_mm))
        if not near.size:
            return None
        thickness, _ = self._thickness(head, at.points_mm[:, near])
        blood = share_between(at.depth_mm[near], 0.0, thickness, at.edge_mm)
        part = hu[near]
        # Within the edge to the bone the cavity's contents stand for themselves: the bone is mixed in afterwards.
        mix(part, self.blood_hu, np.where(at.depth_mm[near] < 0.5 * at.edge_mm, np.sign(blood), blood))
        hu[near] = part
        share = np.zeros_like(hu)
        share[near] = blood
        return share
