"""Masked-patch self-distillation: what is hidden of the student's global views, and what is asked of it there.

V views, N patches, R hidden patches of all views, D width, K prototypes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fmct.experiment.config import Config
from fmct.losses.centering import Centering
from fmct.losses.ibot import IBOTLoss, patch_weights
from fmct.models.heads import DINOHeadConfig
from fmct.models.mask_orders import BlockMasking, Grid, MaskingConfig
from fmct.models.masking import Foreground
from fmct.models.vit3d import ViT3D
from fmct.tasks.student_teacher import StudentTeacher


class HiddenPatches(NamedTuple):
    """Hidden patches of a batch of views."""

    hidden_VN: Tensor
    """(V, N) bool."""
    index_R: Tensor
    """(R,) int64, places of the hidden patches among all V · N, view by view."""
    counts: list[int]
    """How many of each view; 0 where nothing is hidden."""

    def pick(self, patches_VND: Tensor) -> Tensor:
        """Pick the hidden patches' tokens of (V, N, D): (R, D)."""
        return patches_VND.flatten(0, 1).index_select(0, self.index_R)


class IBOTConfig(Config):
    """Masked-patch self-distillation (Zhou et al. 2022, arXiv 2111.07832), with the numbers of DINOv2 (2304.07193)."""

    weight: float = Field(0.0, ge=0, description="of the loss; 0: nothing of it is built")
    mask_probability: float = Field(0.5, gt=0, le=1, description="chance that patches of a global view are hidden")
    mask_ratio: tuple[float, float] = Field((0.1, 0.5), description="then least and greatest share of hidden patches")
    masking: MaskingConfig = Field(BlockMasking(), description="random: each patch by itself; block: cuboids of them")
    foreground: bool = Field(False, description="hide only patches that aren't air (any voxel above -700 HU)")
    head: DINOHeadConfig | None = Field(None, description="a head for patches alone; null: they share the task's head")

    @model_validator(mode="after")
    def _ratio_is_a_range(self) -> IBOTConfig:
        low, high = self.mask_ratio
        if not 0 < low <= high < 1:
            raise ValueError(f"mask_ratio must satisfy 0 < least <= greatest < 1, not {low} and {high}")
        return self

    def build(
        self, width: int, prototypes: int, student_temperature: float, center_momentum: float, centering: Centering
    ) -> PatchDistillation:
        """Build the objective for tokens of a width; `prototypes` are those of the head that is shared, if it is."""
        loss = IBOTLoss(
            self.head.prototypes if self.head else prototypes, student_temperature, center_momentum, centering
        )
        return PatchDistillation(loss, width)

    def draw(self, generators: Sequence[np.random.Generator], grid_zyx: Grid) -> tuple[Tensor, list[float]]:
        """Draw for one view of each scan in which order patches are hidden, (B, N) float32, and what share: B numbers.

        DINOv2 divides shares and chances evenly over a batch; here each scan draws its own, whatever its batch mates.
        """
        low, high = self.mask_ratio
        drawn = [(g.random() < self.mask_probability, g.uniform(low, high)) for g in generators]
        return self.masking.draw(generators, grid_zyx), [ratio if masked else 0.0 for masked, ratio in drawn]

    @staticmethod
    def hide(order_VN: Tensor, ratios: Sequence[float], foreground: Foreground | None) -> HiddenPatches:
        """Hide of each view its share of patches, or of foreground patches: those of greatest values in `order_VN`."""
        views, patches = order_VN.shape
        device = order_VN.device
        available = [patches] * views if foreground is None else foreground.counts
        counts = [int(ratio * count + 1e-6) for ratio, count in zip(ratios, available, strict=True)]
        if foreground is not None:
            order_VN = order_VN - 2 * ~foreground.patches_BN
        first_VN = order_VN.argsort(dim=1, descending=True, stable=True)
        place_VN = first_VN.argsort(dim=1)
        # all that depends on the counts goes to the device at once
        rows = [view for view, count in enumerate(counts) for _ in range(count)]
        places = [place for count in counts for place in range(count)]
        moved = torch.tensor(counts + rows + places, dtype=torch.int64).to(device, non_blocking=True)
        counts_V, row_R, place_R = torch.split(moved, [views, len(rows), len(rows)])
        return HiddenPatches(place_VN < counts_V[:, None], first_VN[row_R, place_R] + row_R * patches, counts)


class PatchDistillation(nn.Module):
    """The learned token in the place of hidden patches, zero at first as in DINOv2, and the loss on what is hidden.

    Attributes:
        called_methods: what is called besides `forward`, see `fmct.experiment.sharding.shard`.
    """

    called_methods: ClassVar[tuple[str, ...]] = ("encode",)

    def __init__(self, loss: IBOTLoss, width: int) -> None:
        super().__init__()
        self.loss = loss
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))

    def no_decay_names(self) -> set[str]:
        """Name the parameters of two and more dimensions that weight decay should leave alone."""
        return {"mask_token"}

    def encode(self, backbone: ViT3D, views: Tensor, hidden: HiddenPatches) -> Tensor:
        """Encode views (V, C, Z, Y, X) with patches hidden: (V, 1 + registers + N, D)."""
        tokens: Tensor = backbone(views, hidden_BN=hidden.hidden_VN, mask_token=self.mask_token)
        return tokens

    def forward(
        self,
        student: tuple[StudentTeacher, Tensor],
        teacher: tuple[StudentTeacher, Tensor],
        hidden: HiddenPatches,
        temperature: float,
        chunk_rows: int | None,
    ) -> Tensor:
        """Hold the student against the teacher where patches were hidden, and move the center.

        Args:
            student: and its tokens of views with patches hidden, (V, N, D) without what stands before the patches.
            teacher: and its tokens of the same views, whole.
            hidden: which were.
            temperature: sharpens the teacher.
            chunk_rows: logits that are there at once; None: all.

        Returns:
            Scalar float32.
        """
        with torch.no_grad():
            logits_RK = teacher[0].head_of_patches()(hidden.pick(teacher[1]))
            targets_RK = self.loss.targets(logits_RK, temperature)
            self.loss.update_center(logits_RK)
        head, tokens_RD = student[0].head_of_patches(), hidden.pick(student[1])
        weight_R = patch_weights(hidden.counts, tokens_RD.device)
        if chunk_rows is None:
            return self.loss.of_logits(head(tokens_RD), targets_RK, weight_R)
        return self.loss.of_embeddings(*head.factors(tokens_RD), targets_RK, weight_R, chunk_rows)
