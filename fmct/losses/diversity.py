"""How much the features and the targets of different scans differ: what a collapse takes away.

B scans, D width, K prototypes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def entropy(p: Tensor) -> Tensor:
    """Entropy in nats of distributions (..., K): (...). At most log K, where they are uniform."""
    nats: Tensor = torch.special.entr(p).sum(-1)
    return nats


def kl_to_uniform(p: Tensor) -> Tensor:
    """Divergence in nats of distributions (..., K) from the uniform one: (...).

    Of the mean target over many scans: near 0 when all prototypes are used alike, log K when one is for all.
    """
    return (math.log(p.shape[-1]) - entropy(p)).clamp(min=0)


def feature_std(x_BD: Tensor) -> Tensor:
    """Standard deviation over scans of L2-normalized features (Chen & He 2021, arXiv 2011.10566, section 4.1).

    Args:
        x_BD: (B, D) features, B of at least 2.

    Returns:
        Scalar float32, the mean over the D dimensions: about 1/sqrt(D) where directions are spread evenly, 0 where all
        are alike.
    """
    return F.normalize(x_BD.float(), dim=1).std(0).mean()


def rankme(x_BD: Tensor, epsilon: float = 1e-7) -> Tensor:
    """Effective rank: exp of the entropy of the singular values (RankMe, Garrido et al. 2023, arXiv 2210.02885, eq. 1).

    Args:
        x_BD: (B, D) features.
        epsilon: added to each singular value's share.

    Returns:
        Scalar float32 from 1 to min(B, D).
    """
    singular = torch.linalg.svdvals(x_BD.float())
    share = singular / singular.sum().clamp(min=torch.finfo(singular.dtype).tiny) + epsilon
    return entropy(share).exp()
