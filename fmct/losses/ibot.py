"""The iBOT loss: of a hidden patch the student should say what its teacher, who sees it, says.

Zhou et al. 2022 (arXiv 2111.07832, eq. 2), weighted as in DINOv2 (Oquab et al. 2023, arXiv 2304.07193).
Shapes: R hidden patches of all views on this process, K prototypes, D bottleneck.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fmct.losses.centering import TeacherTargets
from fmct.losses.prototype_cross_entropy import prototype_cross_entropy


class IBOTLoss(TeacherTargets):
    """Cross-entropy between the teacher's distribution and the student's over hidden patches."""

    def of_logits(self, student_RK: Tensor, targets_RK: Tensor, weight_R: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            student_RK: (R, K) logits of hidden patches; R may be 0, and the loss is.
            targets_RK: (R, K) float32, what the teacher says of the same patches.
            weight_R: (R,) float32, see `patch_weights`.

        Returns:
            Scalar float32: the mean over views of each view's mean over its hidden patches.
        """
        log_p_RK = (student_RK.float() / self.student_temperature).log_softmax(-1)
        return -((targets_RK * log_p_RK).sum(-1) * weight_R).sum()

    def of_embeddings(
        self, embedding_RD: Tensor, directions_KD: Tensor, targets_RK: Tensor, weight_R: Tensor, chunk_rows: int
    ) -> Tensor:
        """Compute the same as `of_logits` in little memory, see `prototype_cross_entropy`."""
        return prototype_cross_entropy(
            embedding_RD, directions_KD, [targets_RK], weight_R, self.student_temperature, chunk_rows
        )


def patch_weights(hidden: list[int], device: torch.device) -> Tensor:
    """Weigh hidden patches so that views weigh alike, and one with nothing hidden counts as a loss of 0 (DINOv2).

    Args:
        hidden: how many patches of each view are hidden.
        device: where the weights are wanted.

    Returns:
        (R,) float32, view by view: 1 / (views x hidden patches of the view).
    """
    weights = [1 / (len(hidden) * count) for count in hidden for _ in range(count)]
    return torch.tensor(weights, dtype=torch.float32).to(device, non_blocking=True)
