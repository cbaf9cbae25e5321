"""Self-distillation: a student learns to say of any view of a scan what its teacher says of a large one.

B scans, C windows, V views, N patches, D width, K prototypes, R hidden patches of all global views.
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

from fmct.experiment.optim import cosine, linear
from fmct.losses.centering import Centering
from fmct.losses.dino import DINOLoss
from fmct.losses.diversity import entropy, kl_to_uniform
from fmct.losses.koleo import koleo
from fmct.models.backbones import Backbone
from fmct.models.heads import DINOHeadConfig
from fmct.models.masking import Foreground
from fmct.models.vit3d import ViT3D
from fmct.tasks.base import Batch, Setting, Task
from fmct.tasks.ibot import HiddenPatches, IBOTConfig
from fmct.tasks.masked_modeling import MaskedModelingConfig, draw_mask_order, require_vit
from fmct.tasks.multi_crop import GLOBAL_VIEWS, MultiCropConfig, views_picture
from fmct.tasks.pretext import PretextConfig
from fmct.tasks.student_teacher import StudentTeacher, follow


class DINOConfig(PretextConfig, MultiCropConfig):
    """Self-distillation with no labels (Caron et al. 2021, arXiv 2104.14294), and what may be added to it."""

    kind: Literal["dino"] = "dino"
    head: DINOHeadConfig = DINOHeadConfig()
    student_temperature: float = Field(0.1, gt=0)
    teacher_temperature_start: float = Field(0.04, gt=0)
    teacher_temperature: float = Field(0.07, gt=0, description="reached after the warm-up")
    teacher_warmup_epochs: int = Field(30, ge=0)
    centering: Centering = Field(
        "center", description="sinkhorn doesn't collapse where batches are small or scans alike"
    )
    center_momentum: float = Field(0.9, ge=0, lt=1, description="of the running mean; only with centering `center`")
    ema_momentum: float = Field(0.994, gt=0, le=1, description="of the teacher at the first step; 1 at the last")
    freeze_last_layer_epochs: int = Field(1, ge=0, description="epochs in which the prototypes don't move")
    loss_chunk_rows: int | None = Field(
        None, gt=0, description="logits of so many rows are there at once: less memory; null: of all"
    )
    ibot: IBOTConfig = Field(IBOTConfig(), description="masked-patch self-distillation")
    koleo_weight: float = Field(0.0, ge=0, description="of the spread of CLS features over scans; DINOv2: 0.1")
    mae_weight: float = Field(0.0, ge=0, description="of masked image modelling by the same encoder")
    mae: MaskedModelingConfig = Field(MaskedModelingConfig(), description="how, with mae_weight above 0")

    def build(self, backbone: Backbone, setting: Setting) -> DINOTask:
        """Build the task around a student encoder; the teacher starts as its exact copy.

        Raises:
            UsageError: when patches are to be hidden from an encoder that isn't a vision transformer.
        """
        for key, weight in (("task.ibot.weight", self.ibot.weight), ("task.mae_weight", self.mae_weight)):
            if weight:
                require_vit(backbone, f"{key} above 0")
        return DINOTask(self, backbone, setting)

    @property
    def needs_foreground(self) -> bool:
        """Whether patches of air must be known."""
        return (self.ibot.weight > 0 and self.ibot.foreground) or (self.mae_weight > 0 and self.mae.foreground)


class DINOTask(Task):
    """Self-distillation over two global and several local views per scan."""

    def __init__(self, config: DINOConfig, backbone: Backbone, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.prototypes = config.head.prototypes
        patch_head = config.ibot.head.build(backbone.width) if config.ibot.weight and config.ibot.head else None
        self.student = StudentTeacher(backbone, config.head.build(backbone.width), patch_head)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()
        loss = (config.head.prototypes, config.student_temperature, config.center_momentum, config.centering)
        self.loss = DINOLoss(*loss)
        # None registers nothing: without a weight for it, an objective has no parameter and no state
        self.ibot = config.ibot.build(backbone.width, *loss) if config.ibot.weight else None
        self.decoder = (
            config.mae.decoder.build(self.encoder, setting.input.channels, config.mae.target_pool_voxels)
            if config.mae_weight
            else None
        )

    @property
    def encoder(self) -> ViT3D:
        """The student's encoder, where patches are hidden from it."""
        return require_vit(self.student.backbone, "hiding patches")

    def train(self, mode: bool = True) -> DINOTask:
        """Switch the student; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def make_views(self, batch: Batch, generators: list[np.random.Generator]) -> Batch:
        """Make `global_views` and `local_views`, see `MultiCropConfig.make`, and draw what is hidden.

        With iBOT, `hidden` says which patches of the global views are; with masked image modelling, `order` in which
        order those of the first one are.
        """
        config, scans = self.config, len(batch["hu"])
        batch = config.make(self, batch, generators, self.encoder.patch_zyx if config.needs_foreground else None)
        if config.ibot.weight:
            grid_zyx = self.encoder.grid_of(batch["global_views"])
            drawn = [config.ibot.draw(generators, grid_zyx) for _ in range(GLOBAL_VIEWS)]
            order_VN = torch.cat([order for order, _ in drawn]).to(batch["hu"].device)
            ratios = [ratio for _, of_view in drawn for ratio in of_view]
            batch["hidden"] = config.ibot.hide(
                order_VN, ratios, batch["foreground"] if config.ibot.foreground else None
            )
        if config.mae_weight:
            first = batch["global_views"][:scans]
            batch["order"] = draw_mask_order(config.mae.masking, self.encoder, first, generators)
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Match the teacher's distribution over prototypes across views, and what else has a weight."""
        views: Tensor = batch["global_views"]
        scans = len(views) // GLOBAL_VIEWS
        hidden: HiddenPatches | None = batch.get("hidden")
        temperature = linear(
            self.trainer.global_step,
            self.config.teacher_warmup_epochs * self.steps_per_epoch,
            self.config.teacher_temperature_start,
            self.config.teacher_temperature,
        )
        with torch.no_grad():
            teacher_tokens = self.teacher.backbone(views)
        if self.ibot is None or hidden is None:
            tokens = self.student.backbone(views)
        else:
            tokens = self.ibot.encode(self.encoder, views, hidden)
        cls_VD = tokens[:, 0]
        self.watched_features = cls_VD[:scans].detach()
        losses = []
        if self.config.koleo_weight:
            losses.append(self.config.koleo_weight * self._part("koleo", self._koleo(cls_VD)))
        if self.ibot is not None and hidden is not None:
            first, rows = self.encoder.prefix_tokens, self.config.loss_chunk_rows
            student, teacher = (self.student, tokens[:, first:]), (self.teacher, teacher_tokens[:, first:])
            agreed = self.ibot(student, teacher, hidden, temperature, rows)
            losses.append(self.config.ibot.weight * self._part("ibot", agreed))
        if self.decoder is not None:
            foreground = self._foreground(batch, scans)
            restored, _ = self.config.mae.loss(self.encoder, self.decoder, views[:scans], batch["order"], foreground)
            losses.append(self.config.mae_weight * self._part("mae", restored))
        if "local_views" in batch:
            cls_VD = torch.cat([cls_VD, self.student.backbone(batch["local_views"])[:, 0]])
        losses.append(self._part("dino", self._view_loss(cls_VD, teacher_tokens[:, 0], temperature)))
        loss = torch.stack(losses).sum()
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/teacher_temperature", temperature)
        return loss

    def _part(self, name: str, loss: Tensor) -> Tensor:
        self.log(f"train/loss_{name}", loss)
        return loss

    def _view_loss(self, cls_VD: Tensor, teacher_cls_VD: Tensor, temperature: float) -> Tensor:
        with torch.no_grad():
            teacher = self.teacher.head(teacher_cls_VD)
            targets = self.loss.targets(teacher, temperature)
            self.loss.update_center(teacher)
        self._log_diversity(targets)
        rows = self.config.loss_chunk_rows
        if rows is None:
            return self.loss.of_logits(self.student.head(cls_VD), targets)
        return self.loss.of_embeddings(*self.student.head.factors(cls_VD), targets, rows)

    def _koleo(self, cls_VD: Tensor) -> Tensor:
        """Sum over the global views, as DINOv2 does: two views of one scan needn't lie apart."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        return torch.stack([koleo(view, data.config.batch_size) for view in cls_VD.chunk(GLOBAL_VIEWS)]).sum()

    def _foreground(self, batch: Batch, scans: int) -> Foreground | None:
        """Return that of the first global view of the first so many scans, if their air is left out."""
        return batch["foreground"].of_views(range(scans)) if self.config.mae.foreground else None

    def _log_diversity(self, targets: Tensor) -> None:
        """Log what tells of a collapse, at the steps that are logged."""
        if not self.log_is_written():
            return
        self.log("train/teacher_entropy", entropy(targets).mean())
        mean = self.trainer.strategy.reduce(targets.mean(0), reduce_op="mean")
        self.log("train/kl_to_uniform", kl_to_uniform(mean))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Hold the prototypes still in the first epochs.

        Without a gradient AdamW doesn't touch them, nor decay them. They don't count in the norm that is clipped, which
        is taken later.
        """
        super().on_before_optimizer_step(optimizer)
        if self.current_epoch < self.config.freeze_last_layer_epochs:
            for parameter in self.student.last_layers():
                parameter.grad = None

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

    def update_teacher(self, momentum: float) -> None:
        """Set teacher = momentum · teacher + (1 − momentum) · student."""
        follow(self.teacher, self.student, momentum)
        self.log("train/ema_momentum", momentum)

    def trainable(self) -> list[tuple[nn.Module, float]]:
        """Return the student, since the teacher learns from it alone, and what its other objectives need."""
        return [(self.student, 1.0), *((part, 1.0) for part in (self.ibot, self.decoder) if part is not None)]

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Draw the views of the first scan and, with masked image modelling, what becomes of a few scans' first one."""
        pictures = {"views": views_picture(batch)}
        if self.decoder is not None:
            few = batch["global_views"][: min(len(batch["hu"]), 3)]
            masking = self.config.mae.mask(batch["order"][: len(few)], self._foreground(batch, len(few)))
            pictures["reconstruction"] = self.config.mae.picture(self.encoder, self.decoder, few, masking)
        return pictures

    def packaged_backbone(self) -> Backbone:
        """Return the teacher's encoder, the better one (Caron et al. 2021, figure 6)."""
        return self.teacher.backbone
