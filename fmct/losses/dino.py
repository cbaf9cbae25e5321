"""The DINO loss: views of a scan should agree on the prototypes (Caron et al. 2021, arXiv 2104.14294, eq. 1-2 and 4).

Shapes: B scans, K prototypes, V views of the student, of which the first two are the teacher's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from fmct.console.errors import UsageError

TEACHER_VIEWS = 2


class DINOLoss(nn.Module):
    """Cross-entropy between the teacher's centered, sharpened distribution and the student's, over all pairs of views.

    Args:
        prototypes: K.
        student_temperature: divides the student's logits.
        center_momentum: how much of the old center stays at each update.
        centering: how the teacher is kept from saying the same of every scan: "center" subtracts the running mean
            (DINO), "sinkhorn" makes every batch use all prototypes alike (SwAV, DINOv2), and needs no center.

    Attributes:
        center: (1, K) float32 buffer, the running mean of the teacher's logits; zeros at first.
    """

    center: Tensor

    def __init__(
        self,
        prototypes: int,
        student_temperature: float = 0.1,
        center_momentum: float = 0.9,
        centering: Literal["center", "sinkhorn"] = "center",
    ) -> None:
        super().__init__()
        self.centering = centering
        self.student_temperature = student_temperature
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(1, prototypes))

    def forward(
        self, student: Tensor | Sequence[Tensor], teacher: Tensor | Sequence[Tensor], teacher_temperature: float
    ) -> Tensor:
        """Compute the loss with the present center, which stays; in training, call `update_center` afterwards.

        Args:
            student: logits of all views, the two global ones first: V tensors (B, K), or one (V * B, K), view by view.
            teacher: logits of the two global views, in the same form; no gradient flows into them.
            teacher_temperature: sharpens the teacher; scheduled by the caller.

        Returns:
            Scalar float32, the mean over scans and over all pairs of a teacher's view and another view of the student.

        Raises:
            UsageError: when the numbers of views or scans don't fit.
        """
        teacher_all = (teacher if isinstance(teacher, Tensor) else torch.cat(tuple(teacher))).detach()
        scans = len(teacher_all) // TEACHER_VIEWS
        views = torch.split(student, scans) if isinstance(student, Tensor) else tuple(student)
        if (
            len(teacher_all) != TEACHER_VIEWS * scans
            or len(views) < TEACHER_VIEWS
            or any(len(v) != scans for v in views)
        ):
            raise UsageError(
                f"{len(teacher_all)} teacher rows and student views of {[len(v) for v in views]} rows don't fit",
                "the DINO loss",
                f"give {TEACHER_VIEWS} global views to the teacher, and the same and any local ones to the student",
            )
        first_BK, second_BK = self._targets(teacher_all, teacher_temperature).chunk(TEACHER_VIEWS)
        # cross-entropy is linear in its target, so a local view meets both teachers' views at once
        targets = [second_BK, first_BK] + [first_BK + second_BK] * (len(views) - TEACHER_VIEWS)
        pairs = zip(views, targets, strict=True)
        losses = [F.cross_entropy(view.float() / self.student_temperature, target_BK) for view, target_BK in pairs]
        return torch.stack(losses).sum() / (TEACHER_VIEWS * (len(views) - 1))

    def _targets(self, teacher: Tensor, temperature: float) -> Tensor:
        if self.centering == "sinkhorn":
            return sinkhorn(teacher, temperature)
        return ((teacher.float() - self.center) / temperature).softmax(-1)

    @torch.no_grad()
    def update_center(self, teacher: Tensor) -> None:
        """Move the center towards the mean of the teacher's logits over all scans, views and processes (eq. 4).

        Args:
            teacher: (rows, K) logits on this process; processes may have different numbers of rows.
        """
        rows = torch.full((1,), float(len(teacher)), device=teacher.device)
        summed = torch.cat([teacher.float().sum(0), rows])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(summed)
        self.center.lerp_(summed[:-1] / summed[-1], 1 - self.center_momentum)


@torch.no_grad()
def sinkhorn(teacher: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """Assign rows so that all prototypes are used alike (Caron et al. 2020, arXiv 2006.09882, section 3.1).

    Args:
        teacher: (rows, K) logits on this process.
        temperature: sharpens the assignment.
        iterations: of the Sinkhorn-Knopp algorithm.

    Returns:
        (rows, K) float32; each row sums to 1, and over the rows of all processes the columns tend to equal sums.
    """
    logits = teacher.float() / temperature
    greatest = logits.max()
    rows = torch.full((), float(len(teacher)), device=teacher.device)
    distributed = dist.is_available() and dist.is_initialized()
    if distributed:
        dist.all_reduce(greatest, dist.ReduceOp.MAX)
        dist.all_reduce(rows)
    assigned = torch.exp(logits - greatest)
    for _ in range(iterations):
        used = assigned.sum(0)
        if distributed:
            dist.all_reduce(used)
        assigned = assigned / used.clamp(min=torch.finfo(used.dtype).tiny) * (rows / logits.shape[1])
        assigned = assigned / assigned.sum(1, keepdim=True).clamp(min=torch.finfo(used.dtype).tiny)
    return assigned
