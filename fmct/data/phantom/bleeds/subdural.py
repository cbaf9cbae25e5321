"""Subdural bleeds: fresh ones (SDH) and those that have been there for weeks (ChronicSDH)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from fmct.data.phantom.bleeds.layer import SurfaceLayer, flattened_mm
from fmct.data.phantom.findings import Finding, register
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.shapes import Array, smooth_step
from fmct.data.phantom.skull import VAULT_CENTER_MM, VAULT_RADII_MM


@register
class SDH(SurfaceLayer):
    """Blood between skull and brain over one hemisphere: a crescent that presses the brain inward."""

    name: ClassVar[str] = "SDH"
    labels: ClassVar[tuple[str, ...]] = ("SDH",)
    severity_names: ClassVar[tuple[str, ...]] = ("SDH_mm",)

    thickness_mm: float = Field(ge=3, le=12, description="where it is thickest")
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

    def profile(self, outward: Array) -> Array:
        """Return a crescent: even in the middle, tapering toward its rim."""
        lateral = np.float32(self.side) * outward[0]
        azimuth = np.degrees(np.arctan2(outward[1], lateral))
        elevation = np.degrees(np.arcsin(np.clip(outward[2], -1.0, 1.0)))
        along = ((azimuth - np.float32(self.azimuth_deg)) / np.float32(self.half_length_deg)) ** 2
        along += ((elevation - np.float32(self.elevation_deg)) / np.float32(self.half_height_deg)) ** 2
        crescent: Array = np.maximum(1.0 - along, 0.0) ** np.float32(0.7)
        return crescent


@register
class LargeSDH(SDH):
    """A subdural bleed of the kind that is operated on: thicker than a centimeter."""

    name: ClassVar[str] = "LargeSDH"

    thickness_mm: float = Field(ge=10, le=25, description="where it is thickest")

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw side, thickness (10 to 24 mm) and extent."""
        half_length = float(rng.uniform(50.0, 68.0))
        return cls(
            side=1 if rng.random() < 0.5 else -1,
            thickness_mm=float(10.0 + 14.0 * rng.beta(1.2, 2.4)),
            azimuth_deg=float(rng.uniform(-1.0, 1.0) * (75.0 - half_length)),
            elevation_deg=float(rng.uniform(12.0, 30.0)),
            half_length_deg=half_length,
            half_height_deg=float(rng.uniform(34.0, 50.0)),
            blood_hu=float(rng.uniform(50.0, 70.0)),
        )


@register
class ChronicSDH(SDH):
    """An old subdural bleed: as dense as brain after two weeks, nearer to fluid later, in some with a sediment.

    It sets `SDH` as well as `ChronicBleed`: of the 19 chronic bleeds that most of CQ500's readers see 18 are subdural.
    """

    name: ClassVar[str] = "ChronicSDH"
    labels: ClassVar[tuple[str, ...]] = ("SDH", "ChronicBleed")
    severity_names: ClassVar[tuple[str, ...]] = ("SDH_mm", "ChronicSDH_mm")

    thickness_mm: float = Field(ge=4, le=20, description="where it is thickest")
    blood_hu: float = Field(24.0, ge=15, le=40, description="of what floats above the sediment, or of all")
    sediment_hu: float = Field(0.0, ge=0, le=30, description="how much denser the sediment of cells is; 0 for none")
    sediment_level: float = Field(0.0, ge=-1, le=1, description="its level from back (-1) to front (1) of the crescent")

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw thickness (4 to 18 mm), extent and density; a quarter are subtle: thin and as dense as brain.

        It lies opposite to a fresh one, where there is one.
        """
        subtle = rng.random() < 0.25
        half_length = float(rng.uniform(50.0, 70.0))
        taken = [int(other.side) for other in others if isinstance(other, SurfaceLayer)]
        free = -taken[0] if taken else (1 if rng.random() < 0.5 else -1)
        settled = not subtle and rng.random() < 0.3
        return cls(
            side=1 if free > 0 else -1,
            thickness_mm=float(rng.uniform(4.0, 7.0) if subtle else 6.0 + 12.0 * rng.beta(1.3, 1.8)),
            azimuth_deg=float(rng.uniform(-1.0, 1.0) * (78.0 - half_length)),
            elevation_deg=float(rng.uniform(15.0, 32.0)),
            half_length_deg=half_length,
            half_height_deg=float(rng.uniform(34.0, 50.0)),
            blood_hu=float(rng.uniform(28.0, 36.0) if subtle else rng.uniform(15.0, 28.0)),
            sediment_hu=float(rng.uniform(14.0, 28.0)) if settled else 0.0,
            sediment_level=float(rng.uniform(-0.5, 0.1)),
        )

    def severity(self) -> dict[str, float]:
        """Return the greatest thickness in mm, for subdural bleeds of any age and for old ones."""
        return {"SDH_mm": self.thickness_mm, "ChronicSDH_mm": self.thickness_mm}

    def yielding_mm(self, head: HeadParameters, thickness_mm: Array) -> Array | float:
        """Return the fluid beneath, which it presses away."""
        return flattened_mm(head, thickness_mm)

    def contents_hu(self, head: HeadParameters, points_mm: Array) -> Array | float:
        """Return the HU of the fluid, higher under the level that lies across as the patient does."""
        if not self.sediment_hu:
            return self.blood_hu
        height = head.pose.matrix[1] @ points_mm
        return np.float32(self.blood_hu) + np.float32(self.sediment_hu) * smooth_step(
            self.level_mm(head) - height, -2.0, 5.0
        )

    def level_mm(self, head: HeadParameters) -> float:
        """Return the sediment's level: height over the couch against the anterior commissure's, mm."""
        azimuth, elevation = np.radians([self.azimuth_deg, self.elevation_deg])
        middle = np.array([np.cos(azimuth) * self.side, np.sin(azimuth), np.tan(elevation)]) * np.cos(elevation)
        middle = np.array(head.scale) * (np.array(VAULT_CENTER_MM) + np.array(VAULT_RADII_MM) * middle)
        reach = VAULT_RADII_MM[1] * np.sin(np.radians(self.half_length_deg)) * 0.8
        return float(head.pose.matrix[1] @ middle + self.sediment_level * reach)
