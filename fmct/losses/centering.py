"""What the teacher's logits are turned into, so that it can't say the same of everything.

Shapes: K prototypes; rows are views of scans, or patches of them.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

Centering = Literal["center", "sinkhorn"]


class TeacherTargets(nn.Module):
    """Base of losses against what the teacher says: centered and sharpened, or assigned by Sinkhorn-Knopp.

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
        centering: Centering = "center",
    ) -> None:
        super().__init__()
        self.student_temperature = student_temperature
        self.centering = centering
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(1, prototypes))

    @torch.no_grad()
    def targets(self, teacher: Tensor, temperature: float) -> Tensor:
        """Turn the teacher's logits (rows, K) into distributions with the present center: (rows, K) float32."""
        if self.centering == "sinkhorn":
            return sinkhorn(teacher, temperature)
        return ((teacher.float() - self.center) / temperature).softmax(-1)

    @torch.no_grad()
    def update_center(self, teacher: Tensor) -> None:
        """Move the center, if it counts, towards the mean of the teacher's logits of all processes (DINO, eq. 4).

        It stays where it is when there are no rows at all, or any logit is no number.

        Args:
            teacher: (rows, K) logits on this process; processes may have different numbers of rows.
        """
        if self.centering != "center":
            return
        rows = torch.full((1,), float(len(teacher)), device=teacher.device)
        summed = torch.cat([teacher.float().sum(0), rows])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(summed)
        moved = self.center.lerp(summed[:-1] / summed[-1], 1 - self.center_momentum)
        self.center.copy_(moved.where(moved.isfinite().all(), self.center))


@torch.no_grad()
def sinkhorn(teacher: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """Assign rows so that all prototypes are used alike (Caron et al. 2020, arXiv 2006.09882, section 3.1).

    Done with logarithms: at a low temperature most exponentials are 0 in float32, and a prototype or a row of zeros
    can't be scaled to anything.

    Args:
        teacher: (rows, K) logits on this process; processes may have different numbers of rows, also none.
        temperature: sharpens the assignment.
        iterations: of the Sinkhorn-Knopp algorithm.

    Returns:
        (rows, K) float32; each row sums to 1, and over the rows of all processes the columns tend to equal sums.
    """
    log_assigned = teacher.float() / temperature
    for _ in range(iterations):
        log_assigned.sub_(_log_column_sums(log_assigned))
        log_assigned.sub_(log_assigned.logsumexp(1, keepdim=True))
    return log_assigned.exp_()


def _log_column_sums(log_values: Tensor) -> Tensor:
    """Return the logarithm of the sums of exp(values) of each column over the rows of all processes, (K,)."""
    own = log_values.logsumexp(0)  # -inf where this process has no row
    if not (dist.is_available() and dist.is_initialized()):
        return own
    greatest = own.clone()
    dist.all_reduce(greatest, dist.ReduceOp.MAX)
    total = (own - greatest).exp()
    dist.all_reduce(total)
    return greatest + total.log()
