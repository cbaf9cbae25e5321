"""Occlusion: how far an output falls when a place of the scan is made plain (Zeiler & Fergus 2014, arXiv 1311.2901).

The only map here that asks the model instead of following what goes on in it: so it holds for any network, and for one
that compares the two sides of a head. To that one a lesion and the healthy place opposite count alike, and attention
may rest on either; but making the healthy place plain leaves the lesion as asymmetric as it was.

Shapes: 1 scan, B copies of it, C windows, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

from fmct.views.windows import Window, windows

PLAIN_HU = 33.0
"""What is put in place of soft tissue: brain."""
SOFT_HU = (-15.0, 110.0)
"""What is replaced: fluid, brain, blood. Bone and air stay: a hole in the skull would be a finding of its own."""
COPIES_AT_A_TIME = 8


def occlusion(
    x: Tensor,
    hu: Tensor,
    shown_in: Sequence[Window],
    cell_zyx: tuple[int, int, int],
    logits_of: Callable[[Tensor], Tensor],
) -> Tensor:
    """Make one place after the other plain, and see how far logits fall.

    Args:
        x: (1, C, Z, Y, X) windows in [0, 1] of one scan.
        hu: (Z, Y, X) Hounsfield units of the same voxels.
        shown_in: the C windows.
        cell_zyx: voxels of a place along each axis; the last one may be smaller.
        logits_of: (B, C, Z, Y, X) -> (B, L) logits.

    Returns:
        (L, z, y, x) float32, not negative: the fall of each logit; 0 where no soft tissue is.
    """
    soft_ZYX = (hu > SOFT_HU[0]) & (hu < SOFT_HU[1])
    plain_C111 = windows(torch.full((1, 1, 1, 1, 1), PLAIN_HU, device=x.device), shown_in)[0]
    counts = [-(-size // step) for size, step in zip(hu.shape, cell_zyx, strict=True)]
    cells = []
    for index in product(*map(range, counts)):
        z, y, at = (slice(n * step, (n + 1) * step) for n, step in zip(index, cell_zyx, strict=True))
        if soft_ZYX[z, y, at].any():
            cells.append((index, (..., z, y, at)))
    before_L = logits_of(x)[0]
    falls_LZYX = torch.zeros(len(before_L), *counts)
    for first in range(0, len(cells), COPIES_AT_A_TIME):
        chosen = cells[first : first + COPIES_AT_A_TIME]
        copies = x.repeat(len(chosen), 1, 1, 1, 1)
        for copy, (_, place) in zip(copies, chosen, strict=True):
            copy[place] = torch.where(soft_ZYX[place], plain_C111, copy[place])
        for (index, _), after_L in zip(chosen, logits_of(copies), strict=True):
            falls_LZYX[:, index[0], index[1], index[2]] = (before_L - after_L).clamp(min=0).float().cpu()
    return falls_LZYX


def hu_of_windows(x_CZYX: Tensor, shown_in: Sequence[Window]) -> Tensor:
    """Return the Hounsfield units that windows (C, Z, Y, X) show, (Z, Y, X), as far as the widest of them reaches."""
    channel, widest = max(enumerate(shown_in), key=lambda pair: pair[1].width_hu)
    return widest.level_hu + (x_CZYX[channel].float() - 0.5) * widest.width_hu
