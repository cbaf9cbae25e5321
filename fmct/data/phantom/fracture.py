"""Fracture of the vault: a lucent line through the bone, sometimes with a fragment pressed in and a swollen scalp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from fmct.data.phantom.findings import Finding, register
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.shapes import Array, mix, share_between, share_inside, smooth_step
from fmct.data.phantom.skull import OuterPoints, Shell
from fmct.data.phantom.vault_line import VaultLine

CLEFT_HU = 45.0  # what fills the line
BORDER_MM = 2.0  # so far from its middle bone counts as the fracture's in masks
FRAGMENT_MM, FRAGMENT_DEG = 13.0, 16.0  # breadth of a fragment that is pressed in; it ends within so many degrees


@register
class Fracture(Finding):
    """A cleft through all layers of the bone; what lies beside it may be pressed in, what lies over it swollen."""

    name: ClassVar[str] = "Fracture"
    labels: ClassVar[tuple[str, ...]] = ("Fracture",)
    severity_names: ClassVar[tuple[str, ...]] = ("fracture_mm",)

    line: VaultLine
    width_mm: float = Field(ge=0.3, le=4, description="of the cleft where it is widest")
    step_mm: float = Field(0.0, ge=0, le=6, description="how far one side is pressed in")
    swelling_mm: float = Field(0.0, ge=0, le=14, description="thickness of the hematoma in the scalp")
    swelling_deg: float = Field(25.0, gt=0, le=50, description="its radius, seen from the vault's center")
    swelling_hu: float = Field(58.0, ge=45, le=70)

    @property
    def side(self) -> int:
        """1 right, -1 left."""
        return self.line.side

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw place, course and width, over an epidural bleed where there is one; three in ten are hairlines."""
        hairline = rng.random() < 0.3
        depressed = not hairline and rng.random() < 0.3
        swollen = rng.random() < (0.3 if hairline else 0.75)
        line = VaultLine(
            side=1 if rng.random() < 0.5 else -1,
            azimuth_deg=float(rng.uniform(-75.0, 70.0)),
            elevation_deg=float(rng.uniform(5.0, 55.0)),
            heading_deg=float(rng.uniform(0.0, 180.0)),
            half_length_deg=float(rng.uniform(14.0, 38.0)),
            jaggedness_mm=float(rng.uniform(0.6, 1.8)),
            seed=int(rng.integers(2**31)),
        )
        below = next((other for other in others if other.name == "EDH"), None)
        if below is not None:
            places = {name: getattr(below, name) for name in ("side", "azimuth_deg", "elevation_deg")}
            line = line.model_copy(update=places)
        return cls(
            line=line,
            width_mm=float(rng.uniform(0.4, 0.8) if hairline else rng.uniform(0.8, 2.0) + rng.exponential(0.3)),
            step_mm=float(rng.uniform(2.0, 5.0)) if depressed else 0.0,
            swelling_mm=float(rng.uniform(3.0, 11.0)) if swollen else 0.0,
            swelling_deg=float(rng.uniform(18.0, 34.0)),
            swelling_hu=float(rng.uniform(50.0, 65.0)),
        )

    def severity(self) -> dict[str, float]:
        """Return the width of the cleft in mm."""
        return {"fracture_mm": self.width_mm}

    @property
    def reach_deg(self) -> float:
        """Farther than this from its middle, seen from the vault's center, it changes nothing."""
        return max(self.line.half_length_deg + FRAGMENT_DEG, self.swelling_deg)

    def press(self, head: HeadParameters, points_mm: Array) -> Array | None:
        """Return how far the bone at each point is pressed in: most beside the line, on one side of it."""
        near = self.line.near(head, points_mm, self.reach_deg) if self.step_mm > 0.0 else np.empty(0, np.intp)
        if not near.size:
            return None
        across, there, _ = self.line.at(head, points_mm[:, near])
        profile = smooth_step(across, -0.5, 0.5) * (1.0 - smooth_step(across, 0.4 * FRAGMENT_MM, 1.4 * FRAGMENT_MM))
        pressed = np.zeros(points_mm.shape[1], np.float32)
        pressed[near] = np.float32(self.step_mm) * there * profile
        return pressed

    def _swelling(self, from_middle_deg: Array) -> Array:
        """Return the thickness of the hematoma over each point, (N,) mm."""
        profile = np.maximum(1.0 - (from_middle_deg / np.float32(self.swelling_deg)) ** 2, 0.0)
        swelling: Array = np.float32(self.swelling_mm) * np.sqrt(profile) * profile
        return swelling

    def reshape(self, head: HeadParameters, points_mm: Array, shell: Shell) -> None:
        """Lift the skin over the hematoma, and keep it where it was over what is pressed in."""
        if self.swelling_mm > 0.0:
            near = self.line.near(head, points_mm, self.swelling_deg)
            _, _, from_middle = self.line.at(head, points_mm[:, near])
            shell.skin_mm[near] -= self._swelling(from_middle)
        pressed = self.press(head, points_mm)
        if pressed is not None:
            shell.skin_mm[:] -= pressed

    def paint_outside(self, head: HeadParameters, hu: Array, at: OuterPoints) -> Array | None:
        """Lay hematoma and cleft into scalp and bone; return the share of bone that borders on the cleft.

        A mask of the cleft alone would be empty wherever voxels are wider than it.
        """
        near = self.line.near(head, at.points_mm, self.reach_deg)
        if not near.size:
            return None
        across, there, from_middle = self.line.at(head, at.points_mm[:, near])
        outside, part = at.shell.outside_mm[near], hu[near]
        gap = outside - at.shell.bone_mm[near]
        if self.swelling_mm > 0.0:
            mix(part, self.swelling_hu, share_between(gap, 0.0, 0.85 * self._swelling(from_middle), at.edge_mm))
        half, bone = np.float32(0.5 * self.width_mm) * np.sqrt(there), share_inside(gap, at.edge_mm)
        mix(part, CLEFT_HU, share_between(across, -half, half, at.edge_mm) * bone)
        hu[near] = part
        border = np.maximum(half, BORDER_MM) * (there > 0.0)
        share = np.zeros_like(hu)
        share[near] = share_between(across, -border, border, at.edge_mm) * bone * share_inside(-outside, at.edge_mm)
        return share
