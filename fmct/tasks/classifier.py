"""Adaptation to disease labels: fine-tuning, probes and low-rank adaptation, from a weight package or from scratch.

B scans, L labels.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from fmct.console.errors import UsageError
from fmct.evaluation.metrics import auroc
from fmct.evaluation.probes import ProbeConfig
from fmct.experiment.config import Config
from fmct.losses.multilabel import BCEConfig, FocalConfig, LossConfig, multilabel_loss
from fmct.models.backbones import Backbone
from fmct.models.heads import HeadConfig, LinearHeadConfig
from fmct.models.lora import LoRAConfig, add_lora, train_factors
from fmct.models.pooling import encode, prefix_tokens_of
from fmct.tasks.adaptation import FINETUNED_LR_FACTOR, FROZEN, Mode, Views, check_mode, check_views, with_defaults
from fmct.tasks.base import Batch, Setting, Task
from fmct.tasks.encoded_once import EncodedOnce
from fmct.views.crops import CropConfig
from fmct.views.intensity import IntensityConfig
from fmct.views.slices import middle_slices

LATERAL = re.compile(r"left|right", re.IGNORECASE)


class ClassifierConfig(Config):
    """Multi-label classification with unknown labels left out of the loss."""

    kind: Literal["classifier"] = "classifier"
    mode: Mode = Field(
        "finetune",
        description="finetune: all is trained, from weights; scratch: all, from random weights; linear and attentive: "
        "the head alone; lora: low-rank factors and the head; knn and logreg: no training, a classifier on features",
    )
    labels: tuple[str, ...] = Field(min_length=1, description="label columns of the manifest, without `label:`")
    weights: Path | None = Field(None, description="weight package or run to start from; null: random weights")
    head: HeadConfig = Field(LinearHeadConfig(), description="of the kind that the mode needs, or linear")
    lora: LoRAConfig | None = Field(None, description="for mode lora")
    backbone_lr_factor: float = Field(
        FINETUNED_LR_FACTOR,
        gt=0,
        le=1,
        description="learning rate of what is trained of the backbone / of the head; 0.01 for finetune, else 1",
    )
    loss: LossConfig = BCEConfig()
    balance: Literal["none", "pos_weight"] = Field(
        "none", description="pos_weight: positives of a label weigh as much as its negatives"
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="validate and package a moving average of the weights; null: the weights"
    )
    views: Views = Field(
        "random",
        description="whole: as evaluation sees scans, or mirrored (crops.flip_probability); each is encoded once, kept",
    )
    crops: CropConfig = CropConfig(share=(0.9, 1.0), place="volume", rotation_deg=5.0, flip_probability=0.0)
    intensity: IntensityConfig = IntensityConfig()
    probe: ProbeConfig = Field(ProbeConfig(), description="of the modes logreg and knn")

    @model_validator(mode="before")
    @classmethod
    def _as_the_mode_says(cls, given: Any) -> Any:
        return with_defaults(given) if isinstance(given, dict) else given

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            raise ValueError(f"a label is named twice: {', '.join(labels)}")
        return labels

    @model_validator(mode="after")
    def _no_flips_of_lateral_labels(self) -> ClassifierConfig:
        lateral = [label for label in self.labels if LATERAL.search(label)]
        if lateral and self.crops.flip_probability > 0:
            raise ValueError(
                f"left-right flips would falsify {', '.join(lateral)}: set task.crops.flip_probability to 0"
            )
        return self

    @model_validator(mode="after")
    def _nothing_contradicts(self) -> ClassifierConfig:
        check_mode(self.mode, self.weights, self.head, self.lora)
        check_views(self.mode, self.views)
        if isinstance(self.loss, FocalConfig) and self.loss.alpha is not None and self.balance != "none":
            raise ValueError("task.loss.alpha and task.balance would both weigh positives: set one to null or none")
        return self

    @property
    def is_probe(self) -> bool:
        """Whether the mode is fitted on frozen features at once, rather than trained in steps."""
        return self.mode in {"logreg", "knn"}

    def build(self, backbone: Backbone, setting: Setting) -> ClassifierTask:
        """Build the task around a backbone that already has its starting weights."""
        return ClassifierTask(self, backbone, setting)


class ClassifierTask(Task):
    """A backbone and a head that gives one logit per label."""

    pos_weight: Tensor

    def __init__(self, config: ClassifierConfig, backbone: Backbone, setting: Setting) -> None:
        super().__init__(setting)
        self.config = config
        self.backbone = backbone
        if config.lora:
            add_lora(backbone, config.lora)
        self.head = config.head.build(backbone.width, len(config.labels), prefix_tokens_of(backbone))
        self.register_buffer("pos_weight", torch.ones(len(config.labels)))
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []
        if self.is_frozen:
            self.backbone.requires_grad_(False)
        self.encoded = EncodedOnce(backbone, self.head, setting.input.whole) if config.views == "whole" else None
        self.train()  # Lightning trains modules in the mode that it finds them in

    @property
    def is_frozen(self) -> bool:
        """Whether nothing of the backbone is trained."""
        return self.config.mode in FROZEN

    def train(self, mode: bool = True) -> ClassifierTask:
        """Switch the head, and the backbone unless its weights stay: it then works as in evaluation."""
        super().train(mode)
        if self.is_frozen:
            self.backbone.eval()
        elif self.config.lora:
            train_factors(self.backbone, mode)
        return self

    def setup(self, stage: str) -> None:
        """Check that every label can be learned, and weigh its positives; a share of readers counts as so much of one.

        Raises:
            UsageError: when a label has only one class among the training scans.
        """
        if stage != "fit":
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        targets = data.train.targets
        positive, negative = np.nansum(targets, 0, dtype=float), np.nansum(1 - targets, 0, dtype=float)
        for label, p, n in zip(self.config.labels, positive, negative, strict=True):
            if p == 0 or n == 0:
                raise UsageError(
                    f"label {label} has {p:g} positive and {n:g} negative training scans: nothing to learn from",
                    data.config.manifest,
                    "leave the label out of task.labels or add scans to data.train_splits",
                )
        if self.config.balance == "pos_weight":
            self.pos_weight.copy_(torch.from_numpy(negative / positive))

    def make_views(self, batch: Batch, generators: list[np.random.Generator]) -> Batch:
        """Make one view per scan: `x` (B, C, Z, Y, X), lightly changed, or `read`, what the head reads of it whole."""
        if self.encoded is not None:
            flipped = [generator.random() < self.config.crops.flip_probability for generator in generators]
            return batch | {"read": self.encoded(batch["scan_id"], batch["hu"], flipped)}
        return batch | {"x": self.random_view(batch, generators, self.config.crops, self.config.intensity)}

    def whole_view(self, batch: Batch) -> Batch:
        """Make the view that validation sees: `x` (B, C, Z, Y, X) of the whole volume, or `read`, as training does."""
        if self.encoded is None:
            return super().whole_view(batch)
        return batch | {"read": self.encoded(batch["scan_id"], batch["hu"], [False] * len(batch["hu"]))}

    def forward(self, x: Tensor) -> Tensor:
        """Classify views: (B, C, Z, Y, X) float32 in [0, 1] -> (B, L) logits."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            tokens = encode(self.backbone, x, mirrored=self.head.mirrored)
        logits: Tensor = self.head(tokens)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Average the loss over the labels that are known."""
        logits = self._logits(batch)
        loss = multilabel_loss(self.config.loss, logits, batch["target"], self.pos_weight, smooth=True)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def _logits(self, batch: Batch) -> Tensor:
        logits: Tensor = self.head(batch["read"]) if self.encoded is not None else self(batch["x"])
        return logits.float()

    def on_validation_epoch_start(self) -> None:
        """Take the first process's batch-norm statistics, which are packaged: ddp does so itself, fsdp2 doesn't."""
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                dist.broadcast(buffer, src=0)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect logits of whole, unaugmented scans."""
        self.seen.append((batch["index"], batch["target"], self._logits(batch)))

    def on_validation_epoch_end(self) -> None:
        """Log the loss, AUROC per label and its mean over all scans, each counted once, whatever process saw it.

        A label with one class has no AUROC and stays out of the mean.
        """
        gathered: list[Any] = [self.all_gather(torch.cat(part)) for part in zip(*self.seen, strict=True)]
        index, target, logits = gathered
        self.seen.clear()
        L = len(self.config.labels)
        _, first = np.unique(index.flatten().cpu().numpy(), return_index=True)  # two processes share out odd numbers
        target, logits = target.reshape(-1, L).cpu()[first], logits.reshape(-1, L).cpu()[first]
        loss = multilabel_loss(self.config.loss, logits, target, self.pos_weight.cpu(), smooth=False)
        self.log("val/loss", loss.item(), prog_bar=True, sync_dist=True)
        targets, scores = target.numpy(), logits.sigmoid().numpy()
        values = []
        for column, label in enumerate(self.config.labels):
            known = ~np.isnan(targets[:, column])
            value = auroc(targets[known, column], scores[known, column])
            if value is not None:
                values.append(value)
                self.log(f"val/auroc_{label}", value, sync_dist=True)
        if values:
            self.log("val/auroc", float(np.mean(values)), prog_bar=True, sync_dist=True)

    def validation_metrics(self) -> tuple[str, ...]:
        """Name what every validation logs: AUROCs of the labels of which there are positive and negative scans."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        columns = zip(self.config.labels, data.val.targets.T, strict=True)
        aurocs = [f"val/auroc_{label}" for label, targets in columns if {0.0, 1.0} <= set(targets.tolist())]
        return ("val/loss", *(["val/auroc"] if aurocs else []), *aurocs)

    def trainable(self) -> list[tuple[nn.Module, float]]:
        """Return the head, and the backbone with its own learning rate unless it is frozen."""
        if self.is_frozen:
            return [(self.head, 1.0)]
        return [(self.head, 1.0), (self.backbone, self.config.backbone_lr_factor)]

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Draw the views of up to three scans side by side, a window in each row."""
        shown = batch["x"][:3] if "x" in batch else self.setting.input.whole(batch["hu"][:3])
        rows = [torch.cat([middle_slices(view) for view in window], 1) for window in shown.unbind(1)]
        return {"views": torch.cat(rows, 0)}

    def packaged_backbone(self) -> Backbone:
        """Return the backbone."""
        return self.backbone
