"""The ways to take a step of pretraining whose times are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fmct.benchmarks.published_steps import CROPS, DECODER, GLOBAL_CROPS
from fmct.models.decoder import DecoderConfig
from fmct.models.heads import DINOHeadConfig
from fmct.models.vit3d import ViT3DConfig
from fmct.tasks.dino import DINOConfig
from fmct.tasks.mae import MAEConfig

Precision = Literal["32-true", "bf16-mixed"]
Objective = Literal["dino", "mae"]


@dataclass(frozen=True)
class Size:
    """How large everything is; the defaults are the published ones.

    Attributes:
        backbone: the network.
        head: of self-distillation.
        voxels: side of a global view.
        local_voxels: true side of a local one.
        dino_scans: of a step of self-distillation.
        mae_scans: of a step of masked image modelling.
    """

    backbone: ViT3DConfig = field(default_factory=ViT3DConfig)
    head: DINOHeadConfig = field(default_factory=DINOHeadConfig)
    voxels: int = 96
    local_voxels: int = 48
    dino_scans: int = 2
    mae_scans: int = 4

    def scans(self, objective: Objective) -> int:
        """Return how many scans a step takes."""
        return self.dino_scans if objective == "dino" else self.mae_scans


@dataclass(frozen=True)
class Way:
    """One way to take a step.

    Attributes:
        name: what it is.
        objective: dino or mae.
        task: what fmct trains; None for the published arithmetic.
        precision: as `trainer.precision`.
        matmul_precision: as `trainer.matmul_precision`; on a CPU "high" is the same as "highest".
    """

    name: str
    objective: Objective
    task: DINOConfig | MAEConfig | None = None
    precision: Precision = "32-true"
    matmul_precision: Literal["highest", "medium"] = "highest"


def ways(objective: Objective, size: Size) -> list[Way]:
    """Return the ways to take a step; the published arithmetic is the first."""
    if objective == "mae":
        small = MAEConfig(decoder=DecoderConfig(depth=4, width=384, heads=6))
        return [
            Way("published: decoder 8 x 768, float32", "mae"),
            Way("fmct, same decoder, float32", "mae", MAEConfig(decoder=DECODER)),
            Way("fmct, same decoder, bf16", "mae", MAEConfig(decoder=DECODER), "bf16-mixed"),
            Way("fmct, decoder 4 x 384, float32", "mae", small),
            Way("fmct, decoder 4 x 384, float32, matmul medium", "mae", small, matmul_precision="medium"),
            Way("fmct, decoder 4 x 384, bf16", "mae", small, "bf16-mixed"),
        ]
    v, w = size.voxels, size.local_voxels

    def dino(views: int, voxels: int) -> DINOConfig:
        return DINOConfig(head=size.head, local_views=views, local_voxels=voxels)

    return [
        Way(f"published: 4 x {v}^3, float32", "dino"),
        Way(f"fmct, 4 x {v}^3, float32", "dino", dino(CROPS - GLOBAL_CROPS, v)),
        Way(f"fmct, 4 x {v}^3, bf16", "dino", dino(CROPS - GLOBAL_CROPS, v), "bf16-mixed"),
        Way(f"fmct, 2 x {v}^3 + 2 x {w}^3, float32", "dino", dino(2, w)),
        Way(f"fmct, 2 x {v}^3 + 2 x {w}^3, float32, matmul medium", "dino", dino(2, w), matmul_precision="medium"),
        Way(f"fmct, 2 x {v}^3 + 2 x {w}^3, bf16", "dino", dino(2, w), "bf16-mixed"),
        Way(f"fmct, 2 x {v}^3 + 8 x {w}^3, bf16", "dino", dino(8, w), "bf16-mixed"),
    ]
