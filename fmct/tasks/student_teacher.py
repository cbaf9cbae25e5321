"""A student and the teacher that follows it: one structure, two sets of weights.

R tokens, D width, K prototypes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fmct.models.backbones import Backbone
from fmct.models.heads import DINOHead


class StudentTeacher(nn.Module):
    """An encoder with a projection head for whole views, and maybe another one for patches.

    Attributes:
        backbone: the encoder.
        head: for CLS tokens.
        patch_head: for patches' tokens, if they don't share `head`.
    """

    def __init__(self, backbone: Backbone, head: DINOHead, patch_head: DINOHead | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.patch_head = patch_head

    def head_of_patches(self) -> DINOHead:
        """Return the head that patches' tokens go through."""
        return self.head if self.patch_head is None else self.patch_head

    def last_layers(self) -> list[nn.Parameter]:
        """Return the prototypes of all heads."""
        return [p for head in (self.head, self.patch_head) if head is not None for p in head.last_layer()]


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Set teacher = momentum · teacher + (1 - momentum) · student, in one call for all tensors.

    Running statistics of norms move like weights: a teacher in evaluation mode normalizes by them. What isn't a
    floating-point number is copied.

    Args:
        teacher: moved.
        student: of the same structure.
        momentum: from 0 (a copy) to 1 (nothing changes).
    """
    moved: tuple[list[Tensor], list[Tensor]] = ([], [])
    for mine, theirs in zip(
        [*teacher.parameters(), *teacher.buffers()], [*student.parameters(), *student.buffers()], strict=True
    ):
        if mine.is_floating_point():
            moved[0].append(mine)
            moved[1].append(theirs)
        else:
            mine.copy_(theirs)
    torch._foreach_lerp_(*moved, 1 - momentum)
