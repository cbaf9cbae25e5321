"""Self-distillation: a student learns to say of any view of a scan what its teacher says of a large one.

B scans, C windows, G global and V local views, K prototypes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from pydantic import Field
from torch import Tensor, nn

from fmct.experiment.config import Config
from fmct.experiment.optim import cosine, linear
from fmct.losses.dino import DINOLoss
from fmct.models.backbones import Backbone
from fmct.models.heads import DINOHead, DINOHeadConfig
from fmct.tasks.base import Batch, Setting, Task
from fmct.views.crops import CropConfig
from fmct.views.intensity import IntensityConfig
from fmct.views.slices import middle_slices

GLOBAL_VIEWS = 2


class DINOConfig(Config):
    """Self-distillation with no labels (Caron et al. 2021, arXiv 2104.14294)."""

    kind: Literal["dino"] = "dino"
    local_views: int = Field(2, ge=0, description="small views per scan, beside the two global ones")
    local_voxels: int = Field(48, gt=0, description="side of a local view: its true size, not blown up")
    global_crops: CropConfig = CropConfig(share=(0.5, 1.0))
    local_crops: CropConfig = CropConfig(share=(0.25, 0.5))
    intensity: IntensityConfig = IntensityConfig(gain=0.2, shift=0.1, gamma=0.3, blur_voxels=0.7)
    head: DINOHeadConfig = DINOHeadConfig()
    student_temperature: float = Field(0.1, gt=0)
    teacher_temperature_start: float = Field(0.04, gt=0)
    teacher_temperature: float = Field(0.07, gt=0, description="reached after the warm-up")
    teacher_warmup_epochs: int = Field(30, ge=0)
    centering: Literal["center", "sinkhorn"] = Field(
        "center", description="sinkhorn doesn't collapse where batches are small or scans alike"
    )
    center_momentum: float = Field(0.9, ge=0, lt=1, description="of the running mean; only with centering `center`")
    ema_momentum: float = Field(0.994, gt=0, le=1, description="of the teacher at the first step; 1 at the last")
    freeze_last_layer_epochs: int = Field(1, ge=0, description="epochs in which the prototypes don't move")

    def build(self, backbone: Backbone, setting: Setting) -> DINOTask:
        """Build the task around a student encoder; the teacher starts as its exact copy."""
        return DINOTask(self, backbone, setting)


class StudentTeacher(nn.Module):
    """An encoder with a projection head."""

    def __init__(self, backbone: Backbone, head: DINOHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Project the CLS token: (B, C, Z, Y, X) -> (B, K)."""
        logits: Tensor = self.head(self.backbone(x)[:, 0])
        return logits


class DINOTask(Task):
    """Self-distillation over two global and several local views per scan."""

    def __init__(self, config: DINOConfig, backbone: Backbone, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.student = StudentTeacher(backbone, config.head.build(backbone.width))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()
        self.loss = DINOLoss(
            config.head.prototypes, config.student_temperature, config.center_momentum, config.centering
        )

    def train(self, mode: bool = True) -> DINOTask:
        """Switch the student; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def make_views(self, batch: Batch, generators: list[np.random.Generator]) -> Batch:
        """Make `global_views` (2·B, C, ...) and `local_views` (V·B, C, ...), view by view."""
        voxels = self.setting.input.voxels

        def make(crops: CropConfig, count: int, side: int) -> Tensor:
            views = [self.random_view(batch, generators, crops, self.config.intensity, side) for _ in range(count)]
            return torch.cat(views)

        views = {"global_views": make(self.config.global_crops, GLOBAL_VIEWS, voxels)}
        if self.config.local_views:
            views["local_views"] = make(self.config.local_crops, self.config.local_views, self.config.local_voxels)
        return batch | views

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Match the teacher's distribution over prototypes across views."""
        with torch.no_grad():
            teacher = self.teacher(batch["global_views"])
        student = self.student(batch["global_views"])
        if "local_views" in batch:
            student = torch.cat([student, self.student(batch["local_views"])])
        temperature = linear(
            self.trainer.global_step,
            self.config.teacher_warmup_epochs * self.steps_per_epoch,
            self.config.teacher_temperature_start,
            self.config.teacher_temperature,
        )
        loss: Tensor = self.loss(student, teacher, temperature)
        self.loss.update_center(teacher)
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/teacher_temperature", temperature)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Hold the prototypes still in the first epochs."""
        super().on_before_optimizer_step(optimizer)
        if self.current_epoch < self.config.freeze_last_layer_epochs:
            self.student.head.prototypes.grad = None

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step the student, then move the teacher towards it."""
        step = self.trainer.global_step
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.update_teacher(cosine(step, self.total_steps, self.config.ema_momentum, 1.0))

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Set teacher = momentum · teacher + (1 − momentum) · student, in one call for all tensors."""
        teacher: list[Tensor] = list(self.teacher.parameters())
        student: list[Tensor] = list(self.student.parameters())
        torch._foreach_lerp_(teacher, student, 1 - momentum)
        self.log("train/ema_momentum", momentum)

    def trainable(self) -> list[tuple[nn.Module, float]]:
        """Return the student: the teacher learns from it alone."""
        return [(self.student, 1.0)]

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Draw the views of the first scan: global ones above, local ones below."""
        count = len(batch["hu"])
        above = torch.cat([middle_slices(view[0]) for view in batch["global_views"][::count]], 1)
        if "local_views" not in batch:
            return {"views": above}
        below = torch.cat([middle_slices(view[0]) for view in batch["local_views"][::count]], 1)
        width = max(above.shape[1], below.shape[1])
        rows = [nn.functional.pad(row, (0, width - row.shape[1])) for row in (above, below)]
        return {"views": torch.cat(rows, 0)}

    def packaged_backbone(self) -> Backbone:
        """Return the teacher's encoder, the better one (Caron et al. 2021, figure 6)."""
        return self.teacher.backbone
