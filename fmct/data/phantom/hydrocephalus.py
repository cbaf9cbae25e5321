"""Hydrocephalus: ventricles that grow under their fluid's pressure, while sulci close."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from fmct.data.phantom.brain import BrainPoints
from fmct.data.phantom.findings import Finding, register
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.shapes import Array, mix, smooth_step
from fmct.data.phantom.ventricles import fluid_spaces

LUCENT_HU = 19.0  # white matter soaked with fluid
CAPS_MM = ((16.0, 34.0, 9.0), (23.0, -58.0, 8.0))  # where it is most: before the frontal, behind the occipital horns
CAP_REACH_MM = 22.0


@register
class Hydrocephalus(Finding):
    """Lateral and third ventricles enlarged out of proportion to sulci; fluid may seep into the tissue around them."""

    name: ClassVar[str] = "Hydrocephalus"
    labels: ClassVar[tuple[str, ...]] = ("Hydrocephalus",)
    severity_names: ClassVar[tuple[str, ...]] = ("ventricle_growth",)

    growth: float = Field(ge=1, le=3.5, description="width of the ventricles against those the head had")
    temporal_horns: float = Field(1.3, ge=1, description="how much more than the others the temporal horns grow")
    third: float = Field(1.3, ge=1, description="how much more than the others the third ventricle grows")
    sulci_left: float = Field(0.4, ge=0, le=1, description="share of the fluid around the brain that is left")
    seepage_mm: float = Field(0.0, ge=0, le=10, description="how far fluid seeps into white matter at the horns")

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw how far it has come: three in ten are early, and as wide as healthy ventricles may be.

        Early ones grow by a fifth to a half, the others by 0.6 to 1.5, less where ventricles were wide already.
        """
        early = rng.random() < 0.3
        growth = 1.2 + 0.3 * rng.random() if early else 1.6 + 0.9 * rng.beta(1.4, 1.6)
        seeping = not early and rng.random() < 0.5
        return cls(
            growth=float(max(1.15, min(growth, 2.9 / head.ventricle_scale))),
            temporal_horns=float(rng.uniform(1.05, 1.25) if early else rng.uniform(1.2, 1.6)),
            third=float(rng.uniform(1.0, 1.3) if early else rng.uniform(1.2, 1.7)),
            sulci_left=float(rng.uniform(0.6, 0.9) if early else rng.uniform(0.15, 0.6)),
            seepage_mm=float(rng.uniform(3.0, 8.0)) if seeping else 0.0,
        )

    def severity(self) -> dict[str, float]:
        """Return the width of the ventricles against those the head had."""
        return {"ventricle_growth": self.growth}

    def alter(self, head: HeadParameters) -> HeadParameters:
        """Widen ventricles, temporal horns and third ventricle above all; narrow sulci and the space over the brain."""
        return head.model_copy(
            update={
                "ventricle_scale": head.ventricle_scale * self.growth,
                "temporal_horn_scale": head.temporal_horn_scale * self.temporal_horns,
                "third_ventricle_scale": head.third_ventricle_scale * self.third,
                "gap_mm": head.gap_mm * self.sulci_left,
                "sulcus_mm": head.sulcus_mm * self.sulci_left,
            }
        )

    def paint(self, head: HeadParameters, hu: Array, at: BrainPoints) -> Array | None:
        """Darken the tissue at the horns where fluid seeps; the finding has no body of its own."""
        if self.seepage_mm == 0.0:
            return None
        x, y, z = at.template_mm
        near = np.flatnonzero((np.abs(x) < 45.0) & (np.abs(z - 9.0) < 28.0) & (np.abs(y + 12.0) < 72.0))
        if near.size:
            template, part = at.template_mm[:, near], hu[near]
            distance = fluid_spaces(head, template).ventricles
            pair = np.stack([np.abs(template[0]), template[1], template[2]])
            from_cap = np.minimum.reduce(
                [np.sqrt(((pair - np.array(cap, np.float32)[:, None]) ** 2).sum(0)) for cap in CAPS_MM]
            )
            seeping = 1.0 - smooth_step(distance, 0.0, self.seepage_mm)
            seeping *= 0.25 + 0.75 * (1.0 - smooth_step(from_cap, 0.5 * CAP_REACH_MM, CAP_REACH_MM))
            lighter = smooth_step(part, LUCENT_HU, LUCENT_HU + 3.0) * (1.0 - smooth_step(part, 38.0, 44.0))
            mix(part, LUCENT_HU, np.float32(0.9) * seeping * lighter)
            hu[near] = part
        return None
