"""Blood in the ventricles (IVH): a sediment in the horns behind, or a clot that fills what lies about a rupture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fmct.data.phantom.blob import Blob
from fmct.data.phantom.brain import BrainPoints
from fmct.data.phantom.findings import Finding, register
from fmct.data.phantom.head import HeadParameters, Pose, Triple
from fmct.data.phantom.noise import PlaneWaves
from fmct.data.phantom.shapes import Array, mix, share_inside
from fmct.data.phantom.ventricles import fluid_spaces

LATTICE_MM = 2.5
LATTICE_BOX_MM = ((-52.0, 52.0), (-82.0, 42.0), (-50.0, 42.0))
RIGHT, LEFT, THIRD, FOURTH = range(4)
CLEAR_ML = 0.2  # a side with less blood than this isn't called bleeding
RUPTURE_MM: Triple = (14.0, -8.0, 18.0)  # beside the thalamus, where most ruptures are, right side
PALING_HU, PALING_MM = 10.0, 5.0  # how much paler the top of a sediment is, over which height


@dataclass(frozen=True)
class Chambers:
    """The ventricles of one head, sampled.

    Attributes:
        points_mm: (3, N) in the head's frame.
        volume_ml: (N,) fluid around each point.
        chamber: (N,) `RIGHT` or `LEFT` lateral, `THIRD`, `FOURTH`.
    """

    points_mm: Array
    volume_ml: Array
    chamber: NDArray[np.int8]

    def capacity_ml(self) -> NDArray[np.float64]:
        """Return the volume of each chamber, (4,)."""
        return np.bincount(self.chamber, self.volume_ml, 4).astype(np.float64)

    def level(self, chamber: int, order: Array, volume_ml: float) -> float:
        """Return up to which value of `order`, (N,), a chamber holds a volume; all of it where it is smaller."""
        inside = self.chamber == chamber
        ranks = np.argsort(order[inside])
        filled = np.cumsum(self.volume_ml[inside][ranks], dtype=np.float64)
        if not volume_ml or not filled.size:
            return -np.inf
        if volume_ml >= filled[-1]:
            return np.inf
        return float(np.interp(volume_ml, filled, order[inside][ranks]))


def chamber_of(head: HeadParameters, template_mm: Array) -> NDArray[np.int8]:
    """Return in which chamber points within the ventricles lie, (N,)."""
    x, y, z = template_mm
    chamber = np.where(x > 0.0, RIGHT, LEFT).astype(np.int8)
    # The third ventricle ends under the lateral ones, whose floor is lower in front, and where they are wide.
    under = np.minimum(np.float32(9.0) + np.float32(0.3) * (np.float32(8.0) - y), np.float32(12.0))
    under -= np.float32(4.0 * max(head.ventricle_scale - 1.0, 0.0))
    chamber[(np.abs(x) < 12.0) & (y > -28.0) & (y < 8.0) & (z < under)] = THIRD
    chamber[(np.abs(x) < 18.0) & (y < -34.0) & (z < -19.0)] = FOURTH
    return chamber


@lru_cache(maxsize=4)
def chambers_of(head: HeadParameters) -> Chambers:
    """Sample the ventricles of a head without findings."""
    axes = [np.arange(low, high, LATTICE_MM, dtype=np.float32) for low, high in LATTICE_BOX_MM]
    template = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    share = share_inside(fluid_spaces(head, template).ventricles, LATTICE_MM)
    wet = np.flatnonzero(share)
    template = template[:, wet]
    cell_ml = LATTICE_MM**3 * float(np.prod(head.scale)) / 1000.0
    points = template * np.array(head.scale, np.float32)[:, None]
    return Chambers(points, share[wet] * np.float32(cell_ml), chamber_of(head, template))


@register
class IVH(Finding):
    """Blood in the ventricles, of a stated volume in each; it goes where they have been moved to.

    A sediment lies toward the patient's back, whatever the pose; a clot fills a lateral ventricle from the rupture on.
    """

    name: ClassVar[str] = "IVH"
    labels: ClassVar[tuple[str, ...]] = ("IVH",)
    bleed: ClassVar[bool] = True
    in_fluid: ClassVar[bool] = True
    severity_names: ClassVar[tuple[str, ...]] = ("IVH_ml",)

    form: Literal["sediment", "clot"]
    lateral_ml: tuple[float, float] = Field(description="blood in the right and in the left lateral ventricle")
    third_ml: float = Field(0.0, ge=0)
    fourth_ml: float = Field(0.0, ge=0)
    rupture_mm: Triple = Field(RUPTURE_MM, description="where a clot begins, in the head's frame")
    blood_hu: float = Field(60.0, ge=35, le=80)
    tinge_hu: float = Field(
        0.0, ge=0, le=15, description="how much denser the fluid over a sediment is than clear fluid"
    )
    seed: int = Field(0, description="of the clot's surface")

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw form and volumes within what the head's ventricles hold; a quarter are subtle: a trace in the horns.

        Beside a bleed into the tissue most are clots that begin there.
        """
        capacity = chambers_of(head.model_copy(update={"pose": Pose()})).capacity_ml()
        beside = next((one for one in (getattr(other, "blob", None) for other in others if other.bleed) if one), None)
        side = RIGHT if (beside.center_mm[0] > 0 if isinstance(beside, Blob) else rng.random() < 0.5) else LEFT
        subtle = rng.random() < 0.25
        clot = not subtle and rng.random() < (0.65 if beside else 0.4)
        share, other_share = rng.uniform(0.4, 0.95), rng.uniform(0.05, 0.35) * (rng.random() < 0.7)
        if subtle:
            share, other_share = rng.uniform(0.02, 0.05), 0.0
        elif not clot:
            share, other_share = rng.uniform(0.07, 0.3), rng.uniform(0.05, 0.25) * (rng.random() < 0.75)
        lateral = [0.0, 0.0]
        lateral[side] = max(float(share * capacity[side]), 0.35 if subtle else 0.8)
        lateral[1 - side] = float(other_share * capacity[1 - side])
        third, fourth = rng.random(2) < ((0.6, 0.45) if clot else (0.0, 0.0 if subtle else 0.3))
        fill = rng.uniform(0.5, 1.0, 2)
        center = beside.center_mm if isinstance(beside, Blob) else RUPTURE_MM
        return cls(
            form="clot" if clot else "sediment",
            lateral_ml=(lateral[0], lateral[1]),
            third_ml=float(third * fill[0] * capacity[THIRD]),
            fourth_ml=float(fourth * fill[1] * capacity[FOURTH]),
            rupture_mm=(abs(center[0]) * (1 if side == RIGHT else -1), center[1], center[2]),
            blood_hu=float(rng.uniform(40.0, 50.0) if subtle else rng.uniform(52.0, 72.0)),
            tinge_hu=0.0 if clot else float(rng.uniform(0.0, 8.0)),
            seed=int(rng.integers(2**31)),
        )

    def severity(self) -> dict[str, float]:
        """Return the volume of blood in mL."""
        return {"IVH_ml": sum(self.lateral_ml) + self.third_ml + self.fourth_ml}

    def sides(self) -> frozenset[int]:
        """Return the sides of the lateral ventricles with blood; third and fourth ventricle have none."""
        return frozenset(side for side, ml in zip((1, -1), self.lateral_ml, strict=True) if ml >= CLEAR_ML)

    def order(self, head: HeadParameters, points_mm: Array, chamber: NDArray[np.int8]) -> Array:
        """Return in which order blood fills points (3, N) of the head's frame, (N,) mm: as it sinks, or spreads."""
        height: Array = head.pose.matrix[1] @ points_mm
        if self.form == "sediment":
            return height
        from_rupture = points_mm - np.array(self.rupture_mm, np.float32)[:, None]
        spread = np.sqrt((from_rupture**2).sum(0)) + np.float32(2.0) * PlaneWaves(self.seed, 24.0).at(points_mm)
        fuller = RIGHT if self.lateral_ml[0] >= self.lateral_ml[1] else LEFT
        return np.where(chamber == fuller, spread, height).astype(np.float32)

    def paint(self, head: HeadParameters, hu: Array, at: BrainPoints) -> Array | None:
        """Lay the blood into the ventricles' fluid; return its share of each voxel."""
        assert at.fluid is not None
        near = np.flatnonzero(at.fluid.ventricular)
        if not near.size:
            return None
        points, wet = at.points_mm[:, near], at.fluid.ventricular[near]
        chamber = chamber_of(head, at.template_mm[:, near])
        under = np.clip(levels_of(self, head)[chamber] - self.order(head, points, chamber), -99.0, 99.0)
        blood = wet * share_inside(-under, max(at.edge_mm, 1.0))
        part = hu[near]
        part += wet * np.float32(self.tinge_hu)
        top = np.exp(np.minimum(-under, 0.0) * np.float32(1.0 / PALING_MM)) * (self.form == "sediment")
        mix(part, np.float32(self.blood_hu) - np.float32(PALING_HU) * top, blood)
        hu[near] = part
        share = np.zeros_like(hu)
        share[near] = blood
        return share


@lru_cache(maxsize=4)
def levels_of(bleed: IVH, head: HeadParameters) -> Array:
    """Return up to which value of its `order` a bleed fills each chamber of a head, (4,) mm."""
    chambers = chambers_of(head)
    order = bleed.order(head, chambers.points_mm, chambers.chamber)
    volumes = (*bleed.lateral_ml, bleed.third_ml, bleed.fourth_ml)
    return np.array([chambers.level(number, order, ml) for number, ml in enumerate(volumes)], np.float32)
