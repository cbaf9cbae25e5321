"""Grooves of vessels in the bone: lucent lines that are no fractures, since they leave the outer table whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from fmct.data.phantom.findings import Finding, register
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.shapes import Array, mix, share_between, share_inside
from fmct.data.phantom.skull import OuterPoints
from fmct.data.phantom.vault_line import VaultLine

VESSEL_HU = 50.0


@register
class VascularGroove(Finding):
    """A branch of the middle meningeal artery or a diploic vein in the inner half of the bone."""

    name: ClassVar[str] = "VascularGroove"

    line: VaultLine
    width_mm: float = Field(ge=0.5, le=3)
    depth: float = Field(0.5, gt=0, le=0.7, description="share of the bone's thickness, from the inner table")

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw side, course (upward and backward over the temple) and size."""
        line = VaultLine(
            side=1 if rng.random() < 0.5 else -1,
            azimuth_deg=float(rng.uniform(-35.0, 45.0)),
            elevation_deg=float(rng.uniform(15.0, 45.0)),
            heading_deg=float(rng.uniform(70.0, 150.0)),
            half_length_deg=float(rng.uniform(16.0, 34.0)),
            jaggedness_mm=float(rng.uniform(0.3, 1.0)),
            seed=int(rng.integers(2**31)),
        )
        return cls(line=line, width_mm=float(rng.uniform(0.8, 2.0)), depth=float(rng.uniform(0.35, 0.65)))

    def paint_outside(self, head: HeadParameters, hu: Array, at: OuterPoints) -> Array | None:
        """Lay the vessel into the bone; return its share of each voxel."""
        near = self.line.near(head, at.points_mm, self.line.half_length_deg + 2.0)
        if not near.size:
            return None
        across, there, _ = self.line.at(head, at.points_mm[:, near])
        outside, part = at.shell.outside_mm[near], hu[near]
        half = np.float32(0.5 * self.width_mm) * np.sqrt(there)
        vessel = share_between(across, -half, half, at.edge_mm) * share_inside(-outside, at.edge_mm)
        vessel *= share_inside(outside - np.float32(self.depth) * at.shell.bone_mm[near], at.edge_mm)
        mix(part, VESSEL_HU, vessel)
        hu[near] = part
        share = np.zeros_like(hu)
        share[near] = vessel
        return share
