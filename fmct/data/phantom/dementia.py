"""Atrophy beyond age, as in Alzheimer's disease and related dementias (ADRD)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from fmct.data.phantom.findings import Finding, register
from fmct.data.phantom.head import HeadParameters

YOUNGEST_YEARS = 60


@register
class ADRD(Finding):
    """Wide temporal horns where the hippocampi were, wide sulci, wide ventricles: more than the years explain."""

    name: ClassVar[str] = "ADRD"
    labels: ClassVar[tuple[str, ...]] = ("ADRD",)
    severity_names: ClassVar[tuple[str, ...]] = ("adrd_stage",)

    stage: float = Field(ge=0, le=1, description="0 hardly more than age does, 1 severe")
    age_years: int = Field(ge=YOUNGEST_YEARS, le=95, description="of the patient")
    asymmetry: float = Field(0.0, ge=-0.2, le=0.2, description="of the ventricles, added to the head's own")

    @classmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw the stage, a quarter below 0.2, and an age at which it occurs where the head's is lower."""
        old = int(rng.integers(YOUNGEST_YEARS + 4, 92))
        return cls(
            stage=float(rng.uniform(0.0, 0.2) if rng.random() < 0.25 else 0.2 + 0.8 * rng.beta(1.5, 1.8)),
            age_years=head.age_years if head.age_years >= YOUNGEST_YEARS else old,
            asymmetry=float(np.clip(rng.normal(0.0, 0.04), -0.1, 0.1)),
        )

    def severity(self) -> dict[str, float]:
        """Return the stage."""
        return {"adrd_stage": self.stage}

    def alter(self, head: HeadParameters) -> HeadParameters:
        """Age the head to what it is now (as `draw_head` does on average), then add what the disease takes away."""
        aged = max(self.age_years - head.age_years, 0) / 70.0
        stage = self.stage
        return head.model_copy(
            update={
                "age_years": max(self.age_years, head.age_years),
                "gap_mm": head.gap_mm + 2.0 * aged + 1.3 * stage,
                "sulcus_mm": head.sulcus_mm + 0.95 * aged + 0.1 + 0.75 * stage,
                "ventricle_scale": head.ventricle_scale * (1.0 + 0.45 * aged) * (1.05 + 0.35 * stage),
                "temporal_horn_scale": head.temporal_horn_scale * (1.2 + 1.3 * stage),
                "third_ventricle_scale": head.third_ventricle_scale * (1.0 + 0.3 * stage),
                "ventricle_asymmetry": float(np.clip(head.ventricle_asymmetry + self.asymmetry, -0.35, 0.35)),
            }
        )
