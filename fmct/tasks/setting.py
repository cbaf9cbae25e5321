"""What a task is given: batches of scans, and its setting in the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fmct.experiment.optim import OptimizerConfig
from fmct.views.network_input import InputConfig

Batch = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What a task needs of the experiment around it."""

    input: InputConfig
    optimizer: OptimizerConfig
    seed: int
    record: dict[str, Any]
    """The whole experiment as plain values, for checkpoints."""
    spacing_mm: float | None = None
    """Of the cached volumes' voxels, on all axes; None where their proportions weren't kept."""
