"""What disturbs a scan beyond noise, by the habits of its site: drawn once, apart from everything else of the scan."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from fmct.data.phantom.head import Triple
from fmct.experiment.config import Config

Rest = Literal["cup", "tray", "pillow"]
METAL_PLACES_MM: tuple[Triple, ...] = (
    (12.0, 10.0, -17.0),  # a clip on the circle of Willis
    (64.0, 14.0, 40.0),  # a hairpin; a plate over a burr hole
    (28.0, 54.0, -96.0),  # a crown
)


class Motion(Config):
    """A sudden move during the turns of the gantry that made some slices."""

    above_mm: float = Field(description="height of the middle of those slices above the anterior commissure")
    length_mm: float = Field(gt=0, description="of the patient scanned meanwhile")
    shift_mm: tuple[float, float] = Field(description="to the right and forward")
    turn_deg: float = Field(description="rotation in the plane")
    when: float = Field(gt=0, lt=1, description="share of the turn done before it")


class Metal(Config):
    """A small piece of metal."""

    center_mm: Triple = Field(description="in the head's frame")
    radius_mm: float = Field(gt=0)


class Effects(Config):
    """What disturbs one scan."""

    hardening: float = Field(0.0, ge=0, le=1, description="share of the beam hardening by bone left uncorrected")
    dose: float = Field(1.0, gt=0, description="noise against the scanner's usual, by the patient and the dose")
    sharp: bool = Field(False, description="reconstructed with the scanner's sharp kernel")
    rest: Rest = Field("cup", description="what the head lies in")
    missed_mm: tuple[float, float] = Field((0.0, 0.0), description="not scanned above the foramen, below the vertex")
    motion: Motion | None = None
    metal: Metal | None = None


class Habits(Config):
    """How often and how strongly a site's scans are disturbed."""

    hardening: tuple[float, float] = Field((0.2, 0.4), description="least and most")
    motion: float = Field(0.04, ge=0, le=1, description="share of scans")
    metal: float = Field(0.03, ge=0, le=1, description="share of scans")
    missed: float = Field(0.08, ge=0, le=1, description="share of scans, for base and vertex each")
    sharp: float = Field(0.0, ge=0, le=1, description="share of scans")
    rests: tuple[Rest, ...] = ("cup",)

    def draw(self, rng: np.random.Generator) -> Effects:
        """Draw the disturbances of one scan; all randomness comes from `rng`."""
        low, high = self.hardening
        hardening, dose = float(rng.uniform(low, high)), float(np.exp(rng.normal(0.0, 0.15)))
        moved, metallic, sharp, no_base, no_vertex = rng.random(5)
        base, vertex = rng.uniform(10.0, 20.0, 2)
        motion, metal = draw_motion(rng), draw_metal(rng)
        return Effects(
            hardening=round(hardening, 3),
            dose=round(dose, 3),
            sharp=bool(sharp < self.sharp),
            rest=self.rests[int(rng.integers(len(self.rests)))],
            missed_mm=(
                round(float(base), 1) if no_base < self.missed else 0.0,
                round(float(vertex), 1) if no_vertex < self.missed else 0.0,
            ),
            motion=motion if moved < self.motion else None,
            metal=metal if metallic < self.metal else None,
        )


def draw_motion(rng: np.random.Generator) -> Motion:
    """Draw a move of millimeters and degrees at any height of the brain."""
    return Motion(
        above_mm=float(rng.uniform(-35.0, 70.0)),
        length_mm=float(rng.uniform(8.0, 45.0)),
        shift_mm=(float(rng.normal(0.0, 1.6)), float(rng.normal(0.0, 1.2))),
        turn_deg=float(rng.normal(0.0, 2.0)),
        when=float(rng.uniform(0.15, 0.85)),
    )


def draw_metal(rng: np.random.Generator) -> Metal:
    """Draw a clip, pin or crown on either side."""
    x, y, z = METAL_PLACES_MM[int(rng.integers(len(METAL_PLACES_MM)))]
    x, y, z = (float(v) for v in np.array([x, y, z]) + rng.normal(0.0, 2.0, 3))
    return Metal(center_mm=(x if rng.random() < 0.5 else -x, y, z), radius_mm=float(rng.uniform(0.9, 2.0)))
