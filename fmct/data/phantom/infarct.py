"""Acute infarcts, whose cytotoxic edema makes an arterial territory swell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from fmct.data.phantom.blob import Blob, draw_blob
from fmct.data.phantom.brain import GREY_HU, WHITE_HU, BrainPoints
from fmct.data.phantom.edema import LEAST_HU, MOST_HU, POSITIVE_FROM_ML
from fmct.data.phantom.findings import Finding, register
from fmct.data.phantom.head import HeadParameters, Triple
from fmct.data.phantom.pushing import pushed_apart
from fmct.data.phantom.shapes import Array, mix, share_inside, smooth_step

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
