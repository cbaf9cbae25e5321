"""Adaptation to disease labels: fine-tuning and linear probing, from a weight package or from scratch.

B scans, L labels.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from fmct.console.errors import UsageError
from fmct.evaluation.metrics import auroc
from fmct.evaluation.probes import ProbeConfig
from fmct.experiment.config import Config
from fmct.models.backbones import Backbone
from fmct.models.heads import AttentiveHeadConfig, LinearHeadConfig
from fmct.tasks.base import Batch, Setting, Task
from fmct.views.crops import CropConfig
from fmct.views.intensity import IntensityConfig
from fmct.views.slices import middle_slices

LATERAL = re.compile(r"left|right", re.IGNORECASE)
HeadConfig = Annotated[LinearHeadConfig | AttentiveHeadConfig, Field(discriminator="kind")]


class ClassifierConfig(Config):
    """Multi-label classification with unknown labels left out of the loss."""

    kind: Literal["classifier"] = "classifier"
    mode: Literal["finetune", "linear", "logreg", "knn"] = Field(
        "finetune",
        description="linear: everything but the head is frozen; logreg, knn: frozen features, no training in steps",
    )
    labels: tuple[str, ...] = Field(min_length=1, description="label columns of the manifest, without `label:`")
    weights: Path | None = Field(None, description="weight package or run to start from; null: random weights")
    head: HeadConfig = LinearHeadConfig()
    backbone_lr_factor: float = Field(0.01, gt=0, le=1, description="learning rate of the backbone / of the head")
    balance: Literal["none", "pos_weight"] = Field(
        "none", description="pos_weight: positives of a label weigh as much as its negatives"
    )
    crops: CropConfig = CropConfig(share=(0.9, 1.0), place="volume", rotation_deg=5.0, flip_probability=0.0)
    intensity: IntensityConfig = IntensityConfig()
    probe: ProbeConfig = Field(ProbeConfig(), description="of the modes logreg and knn")

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
        self.head = config.head.build(backbone.width, len(config.labels))
        self.register_buffer("pos_weight", torch.ones(len(config.labels)))
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []
        if config.mode == "linear":
            self.backbone.requires_grad_(False).eval()  # Lightning trains modules in the mode that it finds them in

    def train(self, mode: bool = True) -> ClassifierTask:
        """Switch the head, and the backbone unless it is frozen."""
        super().train(mode)
        if self.config.mode == "linear":
            self.backbone.eval()
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
        """Make one lightly changed view per scan: `x` (B, C, Z, Y, X)."""
        return batch | {"x": self.random_view(batch, generators, self.config.crops, self.config.intensity)}

    def forward(self, x: Tensor) -> Tensor:
        """Classify views: (B, C, Z, Y, X) float32 in [0, 1] -> (B, L) logits."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.mode != "linear"):
            tokens = self.backbone(x)
        logits: Tensor = self.head(tokens)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Binary cross-entropy over the labels that are known."""
        loss = masked_bce(self(batch["x"]), batch["target"], self.pos_weight)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect probabilities of whole, unaugmented scans."""
        logits = self(batch["x"])
        loss = masked_bce(logits, batch["target"], self.pos_weight)
        self.log("val/loss", loss, batch_size=len(logits), sync_dist=True, prog_bar=True)
        self.seen.append((batch["index"], batch["target"], logits.float().sigmoid()))

    def on_validation_epoch_end(self) -> None:
        """Log AUROC per label and its mean, each scan counted once; a label with one class stays out."""
        gathered: list[Any] = [self.all_gather(torch.cat(part)) for part in zip(*self.seen, strict=True)]
        index, target, probability = gathered
        self.seen.clear()
        L = len(self.config.labels)
        _, first = np.unique(index.flatten().cpu().numpy(), return_index=True)
        targets = target.reshape(-1, L).cpu().numpy()[first]
        scores = probability.reshape(-1, L).cpu().numpy()[first]
        values = []
        for column, label in enumerate(self.config.labels):
            known = ~np.isnan(targets[:, column])
            value = auroc(targets[known, column], scores[known, column])
            if value is not None and not math.isnan(value):
                values.append(value)
                self.log(f"val/auroc_{label}", value, sync_dist=True)
        if values:
            self.log("val/auroc", float(np.mean(values)), prog_bar=True, sync_dist=True)

    def trainable(self) -> list[tuple[nn.Module, float]]:
        """Return the head, and the backbone with its smaller learning rate unless it is frozen."""
        if self.config.mode == "linear":
            return [(self.head, 1.0)]
        return [(self.head, 1.0), (self.backbone, self.config.backbone_lr_factor)]

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Draw the views of up to three scans side by side, a window in each row."""
        shown = batch["x"][:3]
        rows = [torch.cat([middle_slices(view) for view in window], 1) for window in shown.unbind(1)]
        return {"views": torch.cat(rows, 0)}

    def packaged_backbone(self) -> Backbone:
        """Return the backbone."""
        return self.backbone


def masked_bce(logits: Tensor, target: Tensor, pos_weight: Tensor) -> Tensor:
    """Mean binary cross-entropy over known labels.

    Args:
        logits: (B, L).
        target: (B, L) from 0 to 1, the probability of a finding, or NaN for unknown.
        pos_weight: (L,) factor on the positives.

    Returns:
        Scalar; 0, with a gradient of 0, when nothing is known.
    """
    known = ~torch.isnan(target)
    loss = F.binary_cross_entropy_with_logits(
        logits, torch.where(known, target, 0.0), pos_weight=pos_weight, reduction="none"
    )
    return (loss * known).sum() / known.sum().clamp(min=1)
