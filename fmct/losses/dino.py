"""The DINO loss: views of a scan should agree on the prototypes (Caron et al. 2021, arXiv 2104.14294, eq. 1-2 and 4).

Shapes: B scans, K prototypes, D bottleneck, V views of the student, of which the first two are the teacher's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fmct.console.errors import UsageError
from fmct.losses.centering import TeacherTargets
from fmct.losses.prototype_cross_entropy import prototype_cross_entropy

TEACHER_VIEWS = 2


class DINOLoss(TeacherTargets):
    """Cross-entropy between the teacher's targets and the student over all pairs of views; see `TeacherTargets`."""

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
        students, teachers = (
            views if isinstance(views, Tensor) else torch.cat(tuple(views)) for views in (student, teacher)
        )
        return self.of_logits(students, self.targets(teachers, teacher_temperature))

    def of_logits(self, student: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of the student's logits (V * B, K) against the teacher's targets (2 * B, K), view by view.

        Raises:
            UsageError: as `forward`.
        """
        by_view = targets_by_view(targets, len(student))
        scans = len(by_view[0])
        pairs = zip(torch.split(student, scans), by_view, strict=True)
        losses = [F.cross_entropy(view.float() / self.student_temperature, target_BK) for view, target_BK in pairs]
        return torch.stack(losses).sum() / (TEACHER_VIEWS * (len(losses) - 1))

    def of_embeddings(self, embedding: Tensor, directions_KD: Tensor, targets: Tensor, chunk_rows: int) -> Tensor:
        """Compute the same as `of_logits` in little memory.

        Args:
            embedding: (V * B, D) float, view by view, whose products with the prototypes are the student's logits.
            directions_KD: (K, D) float, the prototypes.
            targets: (2 * B, K) float32 of the teacher.
            chunk_rows: rows whose logits are there at once.

        Raises:
            UsageError: as `forward`.
        """
        by_view = targets_by_view(targets, len(embedding))
        scans, views = len(by_view[0]), len(by_view)
        weight_R = embedding.new_full((len(embedding),), 1 / (scans * TEACHER_VIEWS * (views - 1)), dtype=torch.float32)
        return prototype_cross_entropy(
            embedding, directions_KD, by_view, weight_R, self.student_temperature, chunk_rows
        )


def targets_by_view(targets: Tensor, student_rows: int) -> list[Tensor]:
    """Say what each view of the student is held against, (B, K) each.

    Cross-entropy is linear in its target, so a local view meets the sum of both teachers' views, and a global view the
    other one's alone.

    Args:
        targets: (2 * B, K) of the teacher, view by view.
        student_rows: V * B.

    Raises:
        UsageError: when the numbers of views or scans don't fit.
    """
    scans = len(targets) // TEACHER_VIEWS
    views = student_rows // scans if scans else 0
    if len(targets) != TEACHER_VIEWS * scans or views < TEACHER_VIEWS or student_rows != views * scans:
        raise UsageError(
            f"{len(targets)} teacher rows and {student_rows} student rows don't fit",
            "the DINO loss",
            f"give {TEACHER_VIEWS} global views to the teacher, and the same and any local ones to the student",
        )
    first_BK, second_BK = targets.chunk(TEACHER_VIEWS)
    both_BK = [first_BK + second_BK] if views > TEACHER_VIEWS else []
    return [second_BK, first_BK] + both_BK * (views - TEACHER_VIEWS)
