"""Epidural bleeds (EDH): a lens between bone and dura, which is held fast at the sutures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from fmct.data.phantom.bleeds.layer import SurfaceLayer, flattened_mm
from fmct.data.phantom.findings import Finding, register
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.noise import NoiseField
from fmct.data.phantom.shapes import Array, smooth_step, transformed
from fmct.data.phantom.skull import VAULT_CENTER_MM, VAULT_RADII_MM

# Planes through the sutures of the average head, folded onto one side: |x|, y, z components of the normal, and offset.
CORONAL = ((0.0, 0.993, 0.119), 22.2)  # bregma (0, 14, 79) to pterion (63, 23, 0)
LAMBDOID = ((0.413, 0.617, 0.672), -33.7)  # lambda (0, -96, 38) to asterion (50, -66, -20)
SUTURE_MM = 5.0  # over which a lens thins out toward a suture
CURVATURE_MM = 90.0  # usual radius of the vault where lenses lie
# Where they are found: azimuth, elevation (ranges in degrees), and how common each place is.
PLACES = (
    ((-22.0, 4.0), (-2.0, 26.0), 0.72),  # temporal and parietal, between both sutures
    ((44.0, 58.0), (4.0, 34.0), 0.18),  # frontal
    ((-72.0, -64.0), (-18.0, -8.0), 0.10),  # occipital
)


@register
class EDH(SurfaceLayer):
    """Blood between skull and dura: a biconvex lens that ends at sutures and presses the brain inward."""

    name: ClassVar[str] = "EDH"
    labels: ClassVar[tuple[str, ...]] = ("EDH",)
    severity_names: ClassVar[tuple[str, ...]] = ("EDH_mm",)

    thickness_mm: float = Field(ge=3, le=25, description="where it is thickest")
    half_length_deg: float = Field(25.0, gt=0, le=45, description="half the angle it covers from back to front")
    half_height_deg: float = Field(25.0, gt=0, le=45, description="half the angle it covers from top to bottom")
    blood_hu: float = Field(62.0, ge=50, le=75)
    swirl_hu: float = Field(0.0, ge=0, le=30, description="how much darker blood is that hasn't clotted; 0 for none")
    seed: int = Field(0, description="of the swirl")

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw place, thickness (3 to 24 mm), extent and density; a quarter are subtle: thin and small.

        It lies opposite to a subdural bleed, where there is one.
        """
        subtle = rng.random() < 0.25
        place = int(rng.choice(len(PLACES), p=[weight for *_, weight in PLACES]))
        azimuth, elevation, _ = PLACES[place]
        thickness = float(rng.uniform(3.0, 5.0) if subtle else 6.0 + 18.0 * rng.beta(1.2, 2.2))
        # A layer over a base of half-length a on a vault of radius R is flat inside at a**2 / 2R; a lens is thicker.
        half_length = np.sqrt(2.0 * CURVATURE_MM * thickness / rng.uniform(2.2, 3.6))
        half_angle = np.degrees(np.arctan2(half_length, VAULT_RADII_MM[0]))
        taken = [int(other.side) for other in others if isinstance(other, SurfaceLayer)]
        free = -taken[0] if taken else (1 if rng.random() < 0.5 else -1)
        return cls(
            side=1 if free > 0 else -1,
            thickness_mm=thickness,
            azimuth_deg=float(rng.uniform(*azimuth)),
            elevation_deg=float(rng.uniform(*elevation)),
            half_length_deg=float(np.clip(half_angle * rng.uniform(0.95, 1.2), 8.0, 42.0)),
            half_height_deg=float(np.clip(half_angle * rng.uniform(0.85, 1.1), 8.0, 42.0)),
            blood_hu=float(rng.uniform(52.0, 60.0) if subtle else rng.uniform(58.0, 75.0)),
            swirl_hu=float(rng.uniform(12.0, 28.0)) if not subtle and rng.random() < 0.3 else 0.0,
            seed=int(rng.integers(2**31)),
        )

    def severity(self) -> dict[str, float]:
        """Return the greatest thickness in mm."""
        return {"EDH_mm": self.thickness_mm}

    @property
    def direction(self) -> Array:
        """Direction of its middle from the vault's center, (3,), a unit vector in the head's frame."""
        azimuth, elevation = np.radians([self.azimuth_deg, self.elevation_deg])
        ring = np.cos(elevation)
        return np.array([self.side * ring * np.cos(azimuth), ring * np.sin(azimuth), np.sin(elevation)], np.float32)

    def profile(self, outward: Array) -> Array:
        """Return a lens, cut off at the sutures around its middle: coronal, lambdoid and sagittal."""
        middle = self.direction
        forward = np.array([-middle[1] * self.side, abs(middle[0]), 0.0], np.float32) / np.hypot(middle[0], middle[1])
        upward = np.cross(middle, forward) * np.float32(self.side)
        axes = np.stack([middle, forward, upward]).astype(np.float32)
        reach = np.cos(np.radians(max(self.half_length_deg, self.half_height_deg)))
        within = np.flatnonzero(transformed(axes[:1], outward)[0] > np.float32(reach))
        lens = np.zeros(outward.shape[1], np.float32)
        if within.size:
            lens[within] = self._lens(axes, np.ascontiguousarray(outward[:, within]))
        return lens

    def _lens(self, axes: Array, outward: Array) -> Array:
        """Return the profile of directions within its reach; `axes` are middle, forward and upward, (3, 3)."""
        along, across = transformed(axes[1:], outward)
        rim = (along / np.float32(np.sin(np.radians(self.half_length_deg)))) ** 2
        rim += (across / np.float32(np.sin(np.radians(self.half_height_deg)))) ** 2
        held = smooth_step(np.float32(self.side * VAULT_RADII_MM[1]) * outward[0], 0.0, SUTURE_MM)
        for suture in (CORONAL, LAMBDOID):
            own = np.sign(from_suture(suture, axes[0][:, None])[0])
            held *= smooth_step(own * from_suture(suture, outward), 0.0, SUTURE_MM)
        lens: Array = np.maximum(1.0 - rim, 0.0) * held
        return lens

    def yielding_mm(self, head: HeadParameters, thickness_mm: Array) -> Array | float:
        """Return the fluid beneath, which it presses away."""
        return flattened_mm(head, thickness_mm)

    def contents_hu(self, head: HeadParameters, points_mm: Array) -> Array | float:
        """Return the HU of clotted blood, with darker swirls where it still bleeds."""
        if not self.swirl_hu:
            return self.blood_hu
        swirl = smooth_step(self._noise.at(points_mm), 0.3, 1.3)
        return np.float32(self.blood_hu) - np.float32(self.swirl_hu) * swirl

    @cached_property
    def _noise(self) -> NoiseField:
        return NoiseField(self.seed, wavelength_mm=16.0, nodes=32)


def from_suture(plane: tuple[tuple[float, float, float], float], outward: Array) -> Array:
    """Return the distance in mm, along the average vault and positive in front, of directions (3, N) from a suture."""
    normal, offset = plane
    center, radii = np.array(VAULT_CENTER_MM, np.float32)[:, None], np.array(VAULT_RADII_MM, np.float32)[:, None]
    to_vault = 1.0 / np.maximum(np.sqrt(((outward / radii) ** 2).sum(0)), np.float32(1e-6))
    x, y, z = center + outward * to_vault
    distance: Array = np.abs(x) * np.float32(normal[0]) + y * np.float32(normal[1]) + z * np.float32(normal[2])
    return distance - np.float32(offset)
