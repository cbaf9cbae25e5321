"""Tumors: within the brain, solid or with a dead core, sometimes calcified; or dense and seated on the dura."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from fmct.data.phantom.blob import Blob, draw_blob
from fmct.data.phantom.brain import BrainPoints
from fmct.data.phantom.findings import Finding, register
from fmct.data.phantom.head import HeadParameters, Triple
from fmct.data.phantom.noise import NoiseField
from fmct.data.phantom.pushing import pushed_apart
from fmct.data.phantom.shapes import Array, mix, share_inside, smooth_step
from fmct.data.phantom.skull import VAULT_CENTER_MM
from fmct.data.phantom.vault import Vector, outward, vault_mm

# Where tumors grow within the brain, right side of the average head, with how common each place is.
TUMOR_SITES_MM: tuple[tuple[Triple, float], ...] = (
    ((27.0, 30.0, 24.0), 0.30),  # frontal lobe
    ((31.0, -36.0, 33.0), 0.22),  # parietal lobe
    ((39.0, -14.0, -8.0), 0.20),  # temporal lobe
    ((24.0, -66.0, 14.0), 0.13),  # occipital lobe
    ((24.0, -62.0, -33.0), 0.15),  # cerebellum
)
ON_DURA = 0.25  # share of tumors that sit on the dura


@register
class Tumor(Finding):
    """A rounded mass that pushes its surroundings apart; the edema around it is a finding of its own."""

    name: ClassVar[str] = "Tumor"
    labels: ClassVar[tuple[str, ...]] = ("Tumor",)
    severity_names: ClassVar[tuple[str, ...]] = ("tumor_ml",)

    blob: Blob
    solid_hu: float = Field(40.0, ge=28, le=60, description="of the tissue, and of the wall around a core")
    wall_mm: float = Field(0.0, ge=0, description="thickness of the wall around a dead core; 0: solid throughout")
    core_hu: float = Field(18.0, ge=8, le=30)
    calcified: float = Field(0.0, ge=0, le=0.4, description="share of the tissue that is calcified")
    seed: int = 0

    @property
    def side(self) -> int:
        """1 right, -1 left."""
        return 1 if self.blob.center_mm[0] > 0 else -1

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw kind, side, place and volume (1 to 40 mL); three in ten are subtle: small and about as dense as cortex.

        A quarter sit on the dura; of the others two in three have a dead core once they are large enough.
        """
        subtle, dural = rng.random() < 0.3, rng.random() < ON_DURA
        volume = float(rng.uniform(1.0, 4.0) if subtle else 4.0 + 36.0 * rng.beta(1.2, 2.4))
        cored = not dural and volume > 3.0 and rng.random() < 0.67
        calcified = float(rng.uniform(0.05, 0.3)) if rng.random() < (0.3 if dural else 0.15) else 0.0
        dense = rng.uniform(33.0, 39.0) if subtle else rng.uniform(44.0, 56.0) if dural else rng.uniform(34.0, 50.0)
        places, weights = zip(*TUMOR_SITES_MM, strict=True)
        place = np.array(places[int(rng.choice(len(places), p=weights))]) + rng.normal(0.0, 2.5, 3)
        azimuth, elevation = rng.uniform(-65.0, 75.0), rng.uniform(5.0, 55.0)
        if dural:
            place = under_dura(float(azimuth), float(elevation), volume)
        place = place * np.array(head.scale) * (1 if rng.random() < 0.5 else -1, 1, 1)
        blob = draw_blob(rng, (float(place[0]), float(place[1]), float(place[2])), volume)
        return cls(
            blob=blob.model_copy(update={"roughness": 0.6 * blob.roughness}) if dural else blob,
            solid_hu=float(dense),
            wall_mm=float(min(rng.uniform(2.5, 6.0), 0.45 * blob.radius_mm)) if cored else 0.0,
            core_hu=float(rng.uniform(12.0, 26.0)),
            calcified=0.0 if subtle else calcified,
            seed=int(rng.integers(2**31)),
        )

    @cached_property
    def _texture(self) -> NoiseField:
        return NoiseField(self.seed, wavelength_mm=8.0, nodes=32)

    def severity(self) -> dict[str, float]:
        """Return the volume in mL."""
        return {"tumor_ml": self.blob.volume_ml}

    def displacement(self, head: HeadParameters, points_mm: Array, depth_mm: Array) -> Array | None:
        """Push tissue away from the center: a tumor displaces more than it replaces."""
        return pushed_apart(self.blob, points_mm, depth_mm, room=0.7)

    def paint(self, head: HeadParameters, hu: Array, at: BrainPoints) -> Array | None:
        """Lay the mass into `hu`; return its share of each voxel."""
        near = self.blob.near(at.points_mm)
        if not near.size:
            return None
        distance, inside = self.blob.distance(at.points_mm[:, near]), share_inside(-at.depth_mm[near], at.edge_mm)
        texture = self._texture.at(at.points_mm[:, near])
        tissue = np.float32(self.solid_hu) + np.float32(1.5) * texture
        if self.calcified > 0.0:
            bound = float(np.sqrt(2.0) * (1.0 - 2.0 * self.calcified))  # about that share of a normal field lies above
            mix(tissue, 170.0, smooth_step(texture, bound, bound + 0.4))
        if self.wall_mm > 0.0:
            core = share_inside(distance + np.float32(self.wall_mm) * (1.0 + 0.25 * texture), max(at.edge_mm, 1.5))
            mix(tissue, self.core_hu, core)
        body = share_inside(distance, at.edge_mm) * inside
        part = hu[near]
        mix(part, tissue, body)
        hu[near] = part
        share = np.zeros_like(hu)
        share[near] = body
        return share


def under_dura(azimuth_deg: float, elevation_deg: float, volume_ml: float) -> Vector:
    """Return a center in the average head, right side, from which a ball of some volume touches the vault."""
    direction = outward(azimuth_deg, elevation_deg)
    radius = (volume_ml * 1000.0 * 3.0 / (4.0 * np.pi)) ** (1.0 / 3.0)
    center: Vector = np.array(VAULT_CENTER_MM) + direction * (vault_mm(direction) - 0.9 * radius)
    return center
