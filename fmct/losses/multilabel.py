"""Losses of independent labels, some of them unknown, some of them a share of readers.

B scans, L labels.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fmct.experiment.config import Config


class BCEConfig(Config):
    """Binary cross-entropy of each label."""

    kind: Literal["bce"] = "bce"
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of every target that is one half (Szegedy et al. 2016), in training only"
    )

    def of_each(self, logits: Tensor, target: Tensor, pos_weight: Tensor) -> Tensor:
        """Return the loss of each label of each scan, (B, L); targets are known, from 0 to 1."""
        return F.binary_cross_entropy_with_logits(logits, target, pos_weight=pos_weight, reduction="none")


class FocalConfig(Config):
    """Focal loss (Lin et al. 2017, arXiv 1708.02002, eq. 5): what is right already counts less."""

    kind: Literal["focal"] = "focal"
    gamma: float = Field(2.0, ge=0, description="how much less; 0: cross-entropy")
    alpha: float | None = Field(
        None, gt=0, lt=1, description="weight of positives, negatives weigh 1 - alpha (published: 0.25); null: 1 both"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of every target that is one half (Szegedy et al. 2016), in training only"
    )

    def of_each(self, logits: Tensor, target: Tensor, pos_weight: Tensor) -> Tensor:
        """Return the loss of each label of each scan, (B, L); targets are known, from 0 to 1.

        The loss of a soft target is the expectation over what it is the probability of.
        """
        of_negative, of_positive = F.softplus(logits), F.softplus(-logits)  # -log(1 - p), -log p
        positive = torch.exp(-self.gamma * of_negative) * of_positive  # (1 - p) ** gamma * -log p
        negative = torch.exp(-self.gamma * of_positive) * of_negative
        weight_of_positives, weight_of_negatives = (1.0, 1.0) if self.alpha is None else (self.alpha, 1 - self.alpha)
        return weight_of_positives * pos_weight * target * positive + weight_of_negatives * (1 - target) * negative


LossConfig = Annotated[BCEConfig | FocalConfig, Field(discriminator="kind")]


def multilabel_loss(
    config: BCEConfig | FocalConfig, logits: Tensor, target: Tensor, pos_weight: Tensor, *, smooth: bool
) -> Tensor:
    """Average a loss over the labels that are known.

    Args:
        config: which loss.
        logits: (B, L).
        target: (B, L) from 0 to 1, the probability of a finding, or NaN for unknown.
        pos_weight: (L,) factor on the positives.
        smooth: whether targets are smoothed, if the loss says so.

    Returns:
        Scalar; 0, with a gradient of 0, when nothing is known.
    """
    known = ~torch.isnan(target)
    aim = torch.where(known, target, 0.0)
    if smooth:
        aim = aim + config.label_smoothing * (0.5 - aim)
    each = config.of_each(logits, aim, pos_weight)
    return (each * known).sum() / known.sum().clamp(min=1)
