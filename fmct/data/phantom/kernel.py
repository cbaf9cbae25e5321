"""A reconstruction kernel: how sharp its pictures are, and how noisy."""

from __future__ import annotations

from pydantic import Field

from fmct.experiment.config import Config


class Kernel(Config):
    """A second kernel of a scanner, for bone."""

    name: str = Field(description="as its header says it")
    noise_hu: float = Field(gt=0, description="standard deviation at 5 mm thickness")
    noise_correlation_mm: float = Field(ge=0)
    blur_mm: float = Field(gt=0)
    enhancement: float = Field(ge=0, description="how much it overshoots at edges, against their height")
