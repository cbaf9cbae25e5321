"""Vasogenic edema: the white matter around a mass, full of fluid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from fmct.data.phantom.blob import Blob, draw_blob
from fmct.data.phantom.brain import GREY_HU, WHITE_HU, BrainPoints
from fmct.data.phantom.findings import Finding, register
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.pushing import pushed_apart
from fmct.data.phantom.shapes import Array, mix, share_inside, smooth_step

POSITIVE_FROM_ML = 12.0  # what is smaller isn't called edema
LEAST_HU, MOST_HU = 18.0, 26.0  # between these, tissue turns into what isn't fluid


@register
class VasogenicEdema(Finding):
    """Fluid that spreads from a mass along the white matter in fingers, and leaves cortex and nuclei."""

    name: ClassVar[str] = "VasogenicEdema"
    labels: ClassVar[tuple[str, ...]] = ("Edema",)
    severity_names: ClassVar[tuple[str, ...]] = ("edema_ml",)

    blob: Blob = Field(description="how far the fluid reaches, the mass included")
    around: Blob = Field(description="the mass that it spreads from")
    edema_hu: float = Field(20.0, ge=14, le=27)

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw extent (0.7 to 4 times the volume of the mass, 90 mL at most) and density.

        Raises:
            ValueError: when nothing with a body in the brain was drawn before.
        """
        pushing = [other for other in others if type(other).displacement is not Finding.displacement]
        bodies = [getattr(other, "blob", None) for other in pushing]
        masses = [body for body in bodies if isinstance(body, Blob)]
        if not masses:
            raise ValueError("vasogenic edema needs a mass to spread from: name Tumor or IPH before VasogenicEdema")
        mass = masses[-1]
        volume = min(mass.volume_ml * float(rng.uniform(0.7, 4.0)), 90.0)
        x, y, z = mass.center_mm
        # White matter lies toward the middle of the hemisphere.
        middle = np.array([np.sign(x) * 27.0, np.clip(y, -50.0, 35.0), 26.0 if z > -15.0 else -30.0])
        drift = min(0.25 * mass.radius_mm, 5.0)
        toward = middle - np.array(mass.center_mm)
        center = np.array(mass.center_mm) + toward * (drift / max(float(np.linalg.norm(toward)), 1.0))
        blob = draw_blob(rng, (float(center[0]), float(center[1]), float(center[2])), volume + mass.volume_ml)
        return cls(
            blob=blob.model_copy(update={"roughness": float(rng.uniform(0.2, 0.3))}),
            around=mass,
            edema_hu=float(rng.uniform(17.0, 25.0)),
        )

    @property
    def volume_ml(self) -> float:
        """Volume through which the fluid spreads, without the mass."""
        return self.blob.volume_ml - self.around.volume_ml

    def severity(self) -> dict[str, float]:
        """Return the volume through which the fluid spreads, in mL."""
        return {"edema_ml": self.volume_ml}

    def positive(self) -> bool:
        """Return whether the volume reaches `POSITIVE_FROM_ML`."""
        return self.volume_ml >= POSITIVE_FROM_ML

    def displacement(self, head: HeadParameters, points_mm: Array, depth_mm: Array) -> Array | None:
        """Push tissue apart a little: white matter swells."""
        return pushed_apart(self.blob, points_mm, depth_mm, room=0.12)

    def paint(self, head: HeadParameters, hu: Array, at: BrainPoints) -> Array | None:
        """Darken white matter around the mass; return the share of each voxel that is edema."""
        near = self.blob.near(at.points_mm, margin_mm=4.0)
        if not near.size:
            return None
        points, part = at.points_mm[:, near], hu[near]
        white = smooth_step(part, LEAST_HU, MOST_HU) * (1.0 - 0.85 * smooth_step(part, WHITE_HU + 2.0, GREY_HU - 1.0))
        region = 1.0 - smooth_step(self.blob.distance(points), -2.5, 2.5)
        region *= share_inside(-self.around.distance(points), at.edge_mm)
        edema = region * white * share_inside(-at.depth_mm[near], at.edge_mm)
        mix(part, self.edema_hu, edema)
        hu[near] = part
        share = np.zeros_like(hu)
        share[near] = edema
        return share
