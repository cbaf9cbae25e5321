"""The heads of probes that are fitted without steps: logistic regression, and nearest neighbors.

B scans, N tokens, D width or features of a scan (pooled tokens), L labels, S scans of the bank, K neighbors.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from fmct.evaluation.knn import unit_rows
from fmct.experiment.config import Config
from fmct.models.heads import AttentiveHeadConfig, LinearHeadConfig
from fmct.models.pooling import is_mirrored, pooled, pooled_width
from fmct.models.pooling_kinds import POOLING, Pooling

Values = NDArray[np.floating]


class LogisticHeadConfig(Config):
    """Logistic regression on standardized features."""

    kind: Literal["logistic"] = "logistic"
    pooling: Pooling = Field("cls", description=POOLING)
    c: float = Field(gt=0, description="inverse strength of the L2 penalty that it was fitted with")

    def build(self, width: int, labels: int, prefix_tokens: int = 1) -> LogisticHead:
        """Make the head for tokens of the given width, `prefix_tokens` of them before the patches."""
        return LogisticHead(self, pooled_width(width, self.pooling), labels, prefix_tokens)


class LogisticHead(nn.Module):
    """Standardization by the training scans' mean and standard deviation, then one linear layer."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: LogisticHeadConfig, features: int, labels: int, prefix_tokens: int) -> None:
        super().__init__()
        self.config = config
        self.prefix_tokens = prefix_tokens
        self.mirrored = is_mirrored(config.pooling)
        # in double precision: features may lie far from 0, and close together
        self.register_buffer("mean", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(features, dtype=torch.float64))
        self.linear = nn.Linear(features, labels)

    def set(self, mean: Values, scale: Values, weight: Values, bias: Values) -> None:
        """Take over what was fitted: mean and scale (D,), weight (L, D), bias (L,)."""
        parts = ((self.mean, mean), (self.scale, scale), (self.linear.weight, weight), (self.linear.bias, bias))
        with torch.no_grad():
            for own, fitted in parts:
                own.copy_(torch.from_numpy(fitted))

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Turn tokens (B, N, D) into logits (B, L)."""
        features_BD = pooled(tokens_BND, self.config.pooling, self.prefix_tokens).double()
        logits_BL: Tensor = self.linear(((features_BD - self.mean) / self.scale).to(self.linear.weight.dtype))
        return logits_BL


class KNNHeadConfig(Config):
    """Weighted nearest neighbors by cosine similarity, see `fmct.evaluation.knn.knn_scores`."""

    kind: Literal["knn"] = "knn"
    pooling: Pooling = Field("cls", description=POOLING)
    k: int = Field(gt=0, description="neighbors of which a label is known; all of the bank where it has fewer")
    temperature: float = Field(gt=0, description="the smaller, the more the nearest ones count")
    scans: int = Field(gt=0, description="training scans in the bank")

    def build(self, width: int, labels: int, prefix_tokens: int = 1) -> KNNHead:
        """Make the head for tokens of the given width, `prefix_tokens` of them before the patches."""
        return KNNHead(self, pooled_width(width, self.pooling), labels, prefix_tokens)


class KNNHead(nn.Module):
    """The training scans' features and labels.

    Attributes:
        bank: (S, D) features of length 1.
        targets: (S, L) from 0 to 1, NaN where unknown.
    """

    bank: Tensor
    targets: Tensor

    def __init__(self, config: KNNHeadConfig, features: int, labels: int, prefix_tokens: int) -> None:
        super().__init__()
        self.config = config
        self.prefix_tokens = prefix_tokens
        self.mirrored = is_mirrored(config.pooling)
        self.register_buffer("bank", torch.zeros(config.scans, features))
        self.register_buffer("targets", torch.zeros(config.scans, labels))

    def set(self, features: Values, targets: Values) -> None:
        """Take over the training scans' features (S, D), of any length, and targets (S, L)."""
        self.bank.copy_(torch.from_numpy(unit_rows(features)))
        self.targets.copy_(torch.from_numpy(targets))

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Turn tokens (B, N, D) into logits (B, L) float64, whose sigmoid is the weighted share of positives."""
        features_BD = pooled(tokens_BND, self.config.pooling, self.prefix_tokens).float()
        similarity_BS = F.normalize(features_BD, dim=-1).double() @ self.bank.double().T
        shares = []
        for target_S in self.targets.double().unbind(1):
            known = ~torch.isnan(target_S)
            closeness_BK, nearest_BK = similarity_BS[:, known].topk(min(self.config.k, int(known.sum())), dim=1)
            weights_BK = torch.softmax(closeness_BK / self.config.temperature, dim=1)
            shares.append((weights_BK * target_S[known][nearest_BK]).sum(1).clamp(0, 1))
        return torch.logit(torch.stack(shares, 1))


ProbeHeadConfig = LogisticHeadConfig | KNNHeadConfig
AnyHeadConfig = Annotated[LinearHeadConfig | AttentiveHeadConfig | ProbeHeadConfig, Field(discriminator="kind")]
