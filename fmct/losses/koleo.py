"""The KoLeo regularizer: features of a batch should lie apart (Sablayrolles et al. 2019, arXiv 1806.03198, eq. 4).

Shapes: B scans on this process, A on all, D width.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-8


def koleo(features_BD: Tensor, rows_at_most: int) -> Tensor:
    """Average -log of each scan's distance to its nearest neighbor, on the unit sphere.

    As in DINOv2 (arXiv 2304.07193, section 4), but neighbors are sought among the scans of all processes, so that
    several processes do what one with the whole batch does: the value is the mean over all scans, on every process, and
    the gradient is scaled so that the mean over processes is the whole one.

    Args:
        features_BD: (B, D) of one view of each scan.
        rows_at_most: the greatest B of any process; some have fewer when scans were left out.

    Returns:
        Scalar float32; 0 while there is a single scan.
    """
    with torch.autocast(features_BD.device.type, enabled=False):
        own_BD = F.normalize(features_BD.float(), eps=EPS, dim=-1)
        all_AD, valid_A, scale = own_BD, None, 1
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            all_AD, valid_A = _gathered(own_BD, rows_at_most)
            scale = dist.get_world_size()
        with torch.no_grad():
            likeness_AA = all_AD @ all_AD.T
            likeness_AA.fill_diagonal_(-torch.inf)
            if valid_A is not None:
                likeness_AA.masked_fill_(~valid_A, -torch.inf)
            best_A, nearest_A = likeness_AA.max(1)
            counted_A = best_A.isfinite() if valid_A is None else best_A.isfinite() & valid_A
        distance_A = F.pairwise_distance(all_AD, all_AD[nearest_A], eps=EPS)
        apart_A = -(distance_A + EPS).log()
        loss = apart_A.where(counted_A, 0.0).sum() / counted_A.sum().clamp(min=1)
        return loss.detach() + scale * (loss - loss.detach())


def _gathered(own_BD: Tensor, rows_at_most: int) -> tuple[Tensor, Tensor]:
    """Return the rows of all processes, (A, D), own ones with their gradient, and which of them are real, (A,) bool."""
    flagged = F.pad(own_BD.detach(), (0, 1), value=1.0)
    padded = F.pad(flagged, (0, 0, 0, rows_at_most - len(own_BD)))
    everyone = [torch.empty_like(padded) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, padded)
    rank = dist.get_rank()
    parts = [part[:, :-1] for part in everyone]
    parts[rank] = torch.cat([own_BD, parts[rank][len(own_BD) :]])
    return torch.cat(parts), torch.cat(everyone)[:, -1] > 0
