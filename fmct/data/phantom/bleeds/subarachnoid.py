"""Subarachnoid bleeds (SAH): blood in the fluid of a patch of sulci, or of the cisterns and the fissures at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field
from scipy.optimize import brentq

from fmct.data.phantom.brain import Brain, BrainPoints
from fmct.data.phantom.findings import Finding, register
from fmct.data.phantom.fluid import Fluid
from fmct.data.phantom.head import HeadParameters, Pose, Triple
from fmct.data.phantom.noise import PlaneWaves
from fmct.data.phantom.shapes import Array, mix, share_inside, smooth_step
from fmct.data.phantom.skull import VAULT_CENTER_MM, VAULT_RADII_MM, Skull

LATTICE_MM = 2.0
FRONT_MM = 3.0  # half the width over which the blood thins out
ON_GYRI = 0.2  # how much of the fluid over the gyri blood takes, against that in sulci
ONE_SIDED = 0.2  # a side with a smaller share of the blood isn't called bleeding
# Where an artery bursts, on the average head, right side: place, how far blood spreads along each axis, how common.
ANEURYSMS: tuple[tuple[Triple, Triple, float], ...] = (
    ((2.0, 14.0, -18.0), (0.9, 1.3, 1.0), 0.35),  # anterior communicating: up between the hemispheres
    ((30.0, 4.0, -12.0), (0.9, 1.2, 0.9), 0.30),  # middle cerebral: into the Sylvian fissure
    ((10.0, -4.0, -19.0), (1.2, 1.0, 0.8), 0.20),  # posterior communicating
    ((1.0, -20.0, -22.0), (1.0, 1.0, 0.8), 0.15),  # basilar tip
)
FARTHEST_MM = {"cisterns": 52.0, "sulci": 34.0}


@register
class SAH(Finding):
    """Blood mixed into the subarachnoid fluid about one place; thin sulci show it only as far as they fill a voxel."""

    name: ClassVar[str] = "SAH"
    labels: ClassVar[tuple[str, ...]] = ("SAH",)
    bleed: ClassVar[bool] = True
    in_fluid: ClassVar[bool] = True
    severity_names: ClassVar[tuple[str, ...]] = ("SAH_ml",)

    pattern: Literal["cisterns", "sulci"]
    center_mm: Triple = Field(description="on the average head")
    spread: Triple = Field((1.0, 1.0, 1.0), description="how far blood spreads along each axis, relatively")
    volume_ml: float = Field(ge=0, description="of bloody fluid")
    right_share: float = Field(ge=0, le=1, description="how much of it is on the right")
    blood_hu: float = Field(55.0, ge=25, le=80, description="of the bloody fluid")
    seed: int = Field(0, description="of the patch's outline")

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw pattern, place, volume and density; a quarter are subtle: a trace, or so thin that brain is as bright.

        With injuries blood is in sulci, without mostly in the cisterns.
        """
        injured = any(other.name in ("EDH", "SDH", "Fracture") for other in others)
        pattern: Literal["cisterns", "sulci"] = "cisterns" if rng.random() < (0.1 if injured else 0.65) else "sulci"
        side = 1 if rng.random() < 0.5 else -1
        subtle = rng.random() < 0.25
        if pattern == "cisterns":
            number = int(rng.choice(len(ANEURYSMS), p=[weight for *_, weight in ANEURYSMS]))
            place, spread = np.array(ANEURYSMS[number][0]), ANEURYSMS[number][1]
            volume = rng.uniform(1.5, 4.0) if subtle else 5.0 + 25.0 * rng.beta(1.2, 1.8)
        else:
            azimuth, elevation = np.radians([rng.uniform(-65.0, 65.0), rng.uniform(-5.0, 60.0)])
            outward = np.array([np.cos(azimuth), np.sin(azimuth), np.tan(elevation)]) * np.cos(elevation)
            place, spread = np.array(VAULT_CENTER_MM) + 0.9 * np.array(VAULT_RADII_MM) * outward, (1.0, 1.0, 1.0)
            volume = rng.uniform(0.4, 1.0) if subtle else 1.0 + 7.0 * rng.beta(1.2, 2.0)
        place = (place + rng.normal(0.0, 2.0, 3)) * (side, 1, 1)
        bleed = cls(
            pattern=pattern,
            center_mm=(float(place[0]), float(place[1]), float(place[2])),
            spread=spread,
            volume_ml=float(volume),
            right_share=0.5,
            blood_hu=float(rng.uniform(32.0, 44.0) if subtle else rng.uniform(48.0, 68.0)),
            seed=int(rng.integers(2**31)),
        )
        extent = extent_of(bleed, head)
        return bleed.model_copy(update={"volume_ml": extent.volume_ml, "right_share": extent.right_share})

    def severity(self) -> dict[str, float]:
        """Return the volume of bloody fluid in mL."""
        return {"SAH_ml": self.volume_ml}

    def sides(self) -> frozenset[int]:
        """Return the sides with at least a fifth of the blood."""
        return frozenset(
            side for side, share in ((1, self.right_share), (-1, 1.0 - self.right_share)) if share >= ONE_SIDED
        )

    def paint(self, head: HeadParameters, hu: Array, at: BrainPoints) -> Array | None:
        """Mix the blood into the fluid about its center; return its share of each voxel."""
        assert at.fluid is not None
        radius = extent_of(self, head).radius_mm
        reach = (radius + FRONT_MM) * np.array(self.spread) * 1.5
        away = (np.abs(p - np.float32(c)) for p, c in zip(at.template_mm, self.center_mm, strict=True))
        x, y, z = (distance < np.float32(most) for distance, most in zip(away, reach, strict=True))
        near = np.flatnonzero(x & y & z & (at.fluid.subarachnoid > 0.0))
        if not near.size:
            return None
        blood = room(head, at)[near] * front(self.from_center(at.template_mm[:, near]), radius)
        part = hu[near]
        mix(part, self.blood_hu, blood)
        hu[near] = part
        share = np.zeros_like(hu)
        share[near] = blood
        return share

    def from_center(self, template_mm: Array) -> Array:
        """Return how far blood must spread to get to (3, N) points of the average head, (N,) mm."""
        center, spread = (np.array(values, np.float32)[:, None] for values in (self.center_mm, self.spread))
        distance = np.sqrt((((template_mm - center) / spread) ** 2).sum(0))
        wobble = PlaneWaves(self.seed, wavelength_mm=30.0).at(template_mm)
        farther: Array = distance * (1.0 + np.float32(0.12) * wobble)
        return farther


@dataclass(frozen=True)
class Extent:
    """How far a bleed gets in one head.

    Attributes:
        radius_mm: to where fluid is bloody.
        volume_ml: of bloody fluid: what the bleed says, or what there is within `FARTHEST_MM`.
        right_share: how much of it is on the right.
    """

    radius_mm: float
    volume_ml: float
    right_share: float


def extent_of(bleed: SAH, head: HeadParameters) -> Extent:
    """Return how far a bleed spreads in a head, without what else moves the brain."""
    return _extent(bleed, head.model_copy(update={"pose": Pose()}))


@lru_cache(maxsize=4)
def _extent(bleed: SAH, head: HeadParameters) -> Extent:
    farthest = FARTHEST_MM[bleed.pattern]
    axes = [
        np.arange(center - reach, center + reach, LATTICE_MM, dtype=np.float32)
        for center, reach in zip(bleed.center_mm, np.array(bleed.spread) * 1.3 * farthest, strict=True)
    ]
    template = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    template = np.ascontiguousarray(template[:, bleed.from_center(template) < farthest + FRONT_MM])
    depth = -Skull(head).cavity(template * np.array(head.scale, np.float32)[:, None])
    inside = np.flatnonzero(depth > 0.0)
    template, depth = np.ascontiguousarray(template[:, inside]), depth[inside]
    points = template * np.array(head.scale, np.float32)[:, None]
    at = BrainPoints(points, depth, template, depth, LATTICE_MM, Fluid.nowhere(inside.size))
    Brain(head).paint(np.empty(inside.size, np.float32), at)
    fluid_ml = room(head, at).astype(np.float64) * (LATTICE_MM**3 * float(np.prod(head.scale)) / 1000.0)
    from_center = bleed.from_center(template)

    def too_little(radius: float) -> float:
        return float((fluid_ml * front(from_center, radius)).sum()) - bleed.volume_ml

    radius = farthest if too_little(farthest) <= 0.0 else float(brentq(too_little, 0.0, farthest, xtol=0.01))
    blood = fluid_ml * front(from_center, radius)
    volume = float(blood.sum())
    right = share_inside(-template[0], LATTICE_MM)
    return Extent(radius, volume, float((blood * right).sum()) / max(volume, 1e-9))


def room(head: HeadParameters, at: BrainPoints) -> Array:
    """Return how much of each voxel blood can take, (N,): fluid under the arachnoid, most of it between gyri."""
    assert at.fluid is not None
    over_gyri = np.float32(ON_GYRI) * smooth_step(at.tissue_depth_mm, 0.0, 0.5)
    between = smooth_step(at.tissue_depth_mm - np.float32(head.gap_mm), -0.5, 1.5)
    share: Array = at.fluid.subarachnoid * np.maximum(over_gyri, between)
    return share


def front(from_center_mm: Array, radius_mm: float) -> Array:
    """Return the share of fluid that blood has mixed into: 1 inside of the radius, thinning out across it."""
    return 1.0 - smooth_step(from_center_mm, radius_mm - FRONT_MM, radius_mm + FRONT_MM)
