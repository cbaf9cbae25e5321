"""Swelling of the brain: vasogenic edema in the white matter around a mass, cytotoxic edema of an acute infarct."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from fmct.data.phantom.blob import Blob, draw_blob
from fmct.data.phantom.brain import GREY_HU, WHITE_HU, BrainPoints
from fmct.data.phantom.findings import Finding, register
from fmct.data.phantom.head import HeadParameters, Triple
from fmct.data.phantom.pushing import pushed_apart
from fmct.data.phantom.shapes import Array, mix, share_inside, smooth_step

POSITIVE_FROM_ML = 12.0  # what is smaller isn't called edema
LEAST_HU, MOST_HU = 18.0, 26.0  # between these, tissue turns into what isn't fluid
ROOM_OF_INFARCT = 0.4  # share of its volume for which an infarct makes room once it has closed all sulci
SULCI_MM = (20.0, 28.0)  # depth to which fluid is that of sulci, and from which it's that of ventricles

# Middle of arterial territories, right side of the average head, with how common infarcts of each are.
TERRITORIES_MM: tuple[tuple[Triple, float], ...] = (
    ((38.0, 14.0, 24.0), 0.30),  # middle cerebral, upper division
    ((40.0, -30.0, 16.0), 0.30),  # middle cerebral, lower division
    ((36.0, -4.0, 14.0), 0.20),  # middle cerebral, trunk
    ((22.0, -70.0, 10.0), 0.12),  # posterior cerebral
    ((16.0, 38.0, 28.0), 0.08),  # anterior cerebral
)


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


@register
class AcuteInfarct(Finding):
    """An arterial territory that swells: grey matter loses its contrast to white, sulci close.

    Unlike an old infarct it takes room; the first sign is that cortex and nuclei can no longer be told from white
    matter.
    """

    name: ClassVar[str] = "AcuteInfarct"
    labels: ClassVar[tuple[str, ...]] = ("Edema",)
    severity_names: ClassVar[tuple[str, ...]] = ("edema_ml",)

    blob: Blob
    contrast_left: float = Field(0.2, ge=0, le=1, description="share of the contrast between grey and white matter")
    darkening_hu: float = Field(4.0, ge=0, le=12)
    closed: float = Field(0.6, ge=0, le=1, description="share of the fluid in sulci that is pressed out")

    @property
    def side(self) -> int:
        """1 right, -1 left."""
        return 1 if self.blob.center_mm[0] > 0 else -1

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw territory, side, volume (6 to 80 mL) and stage; three in ten are of the first hours and hardly seen."""
        early = rng.random() < 0.3
        volume = float(6.0 + 74.0 * rng.beta(1.3, 1.6))
        places, weights = zip(*TERRITORIES_MM, strict=True)
        place = np.array(places[int(rng.choice(len(places), p=weights))]) + rng.normal(0.0, 2.5, 3)
        radius = (volume * 1000.0 * 3.0 / (4.0 * np.pi)) ** (1.0 / 3.0)
        place[0] = np.clip(place[0], 0.9 * radius, 62.0 - 0.9 * radius if radius < 31.0 else 31.0)
        place *= np.array(head.scale) * (1 if rng.random() < 0.5 else -1, 1, 1)
        return cls(
            blob=draw_blob(rng, (float(place[0]), float(place[1]), float(place[2])), volume),
            contrast_left=float(rng.uniform(0.5, 0.85) if early else rng.uniform(0.0, 0.45)),
            darkening_hu=float(rng.uniform(0.5, 2.5) if early else rng.uniform(3.0, 9.0)),
            closed=float(rng.uniform(0.1, 0.5) if early else rng.uniform(0.4, 0.95)),
        )

    def severity(self) -> dict[str, float]:
        """Return the volume of the territory in mL."""
        return {"edema_ml": self.blob.volume_ml}

    def positive(self) -> bool:
        """Return whether the volume reaches `POSITIVE_FROM_ML`."""
        return self.blob.volume_ml >= POSITIVE_FROM_ML

    def displacement(self, head: HeadParameters, points_mm: Array, depth_mm: Array) -> Array | None:
        """Push tissue apart, by as much as sulci can't give way."""
        return pushed_apart(self.blob, points_mm, depth_mm, room=ROOM_OF_INFARCT * self.closed)

    def paint(self, head: HeadParameters, hu: Array, at: BrainPoints) -> Array | None:
        """Blur grey into white, darken both, fill sulci; return the share of each voxel in the territory."""
        near = self.blob.near(at.points_mm, margin_mm=3.0)
        if not near.size:
            return None
        points, part = at.points_mm[:, near], hu[near]
        distance, inside = self.blob.distance(points), share_inside(-at.depth_mm[near], at.edge_mm)
        own_side = smooth_step(np.float32(self.side) * points[0], 0.0, 2.0)
        territory = (1.0 - smooth_step(distance, -2.5, 2.5)) * inside * own_side
        tissue = smooth_step(part, LEAST_HU, MOST_HU) * (1.0 - smooth_step(part, GREY_HU + 4.0, GREY_HU + 9.0))
        middle = np.float32(0.5 * (GREY_HU + WHITE_HU))
        swollen = middle + np.float32(self.contrast_left) * (part - middle) - np.float32(self.darkening_hu)
        sulcal = (1.0 - tissue) * (part < middle) * (1.0 - smooth_step(at.tissue_depth_mm[near], *SULCI_MM))
        mix(part, np.where(part < LEAST_HU, middle - np.float32(self.darkening_hu), swollen),
            territory * np.maximum(tissue, np.float32(self.closed) * sulcal))  # fmt: skip
        hu[near] = part
        share = np.zeros_like(hu)
        share[near] = share_inside(distance, at.edge_mm) * inside * own_side
        return share
