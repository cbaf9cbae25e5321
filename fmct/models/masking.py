"""Masking: which patches the encoder sees (He et al. 2022, arXiv 2111.06377, section 3).

Shapes: B scans, N patches, K kept patches, M patches that take part. Noise is drawn apart from being applied, so that a
mask can be repeated; its order alone decides (`fmct.models.mask_orders`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fmct.console.errors import UsageError

MOST_OVER_LEAST = 1.25


class Foreground(NamedTuple):
    """Patches that aren't air, of a batch of views, and how many each view has."""

    patches_BN: Tensor
    """(B, N) bool, on the device of the views."""
    counts: list[int]
    """B numbers of at least 2: lengths of sequences follow from them."""

    @classmethod
    def of(cls, patches_BN: Tensor) -> Foreground:
        """Count the patches of each view: fetched from the device once per batch, before the step."""
        return cls(patches_BN, patches_BN.sum(1).tolist())

    def of_views(self, views: Sequence[int]) -> Foreground:
        """Return that of some views, in this order."""
        index = torch.tensor(views).to(self.patches_BN.device, non_blocking=True)
        return Foreground(self.patches_BN.index_select(0, index), [self.counts[view] for view in views])

    def groups(self) -> list[list[int]]:
        """Divide the views into groups of about equal counts, so that little has to be filled up.

        Returns:
            Indices of the views, each in one group: the greatest count of a group is at most 1.25 times its least.
        """
        groups: list[list[int]] = []
        for view in sorted(range(len(self.counts)), key=self.counts.__getitem__):
            if groups and self.counts[view] <= MOST_OVER_LEAST * self.counts[groups[-1][0]]:
                groups[-1].append(view)
            else:
                groups.append([view])
        return groups


class Masking(NamedTuple):
    """Which patches are kept, and how to put a shuffled sequence (kept first, hidden after) back in order.

    Where air is left out, scans have different numbers of patches; shorter sequences are filled up with `absent` ones.
    """

    keep_BK: Tensor
    """(B, K) int64: indices of the patches that the encoder sees, in the order in which it sees them."""
    restore_BN: Tensor
    """(B, N) int64: where patch n stands in the shuffled sequence; (B, M), those of `shown_BM`, where air is left out:
    K and beyond for hidden ones."""
    mask_BN: Tensor
    """(B, N) float32: 1 where a patch is hidden, 0 where it is seen or left out."""
    absent_BK: Tensor | None = None
    """(B, K) bool, True where `keep_BK` only fills up; None when nothing does."""
    shown_BM: Tensor | None = None
    """(B, M) int64: indices of the patches that take part, in row-major order; None: all."""
    absent_BM: Tensor | None = None
    """(B, M) bool, True where `shown_BM` only fills up; None when nothing does."""

    def of_shown(self, values_BN: Tensor) -> Tensor:
        """Pick from (B, N, ...) the patches that take part: (B, M, ...)."""
        if self.shown_BM is None:
            return values_BN
        return values_BN.take_along_dim(self.shown_BM.view(*self.shown_BM.shape, *[1] * (values_BN.ndim - 2)), dim=1)

    @property
    def scored(self) -> Tensor:
        """(B, M) float32: 1 where a patch that takes part is hidden."""
        scored_BM = self.of_shown(self.mask_BN)
        return scored_BM if self.absent_BM is None else scored_BM * ~self.absent_BM

    @property
    def seen(self) -> Tensor:
        """(B, M) float32: 1 where a patch that takes part is seen by the encoder."""
        seen_BM = 1 - self.of_shown(self.mask_BN)
        return seen_BM if self.absent_BM is None else seen_BM * ~self.absent_BM


def draw_noise(batch: int, patches: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """Draw the noise whose order decides what is hidden.

    Args:
        batch: B.
        patches: N.
        generator: the source of randomness; on another device than `device`, the noise is drawn there and moved.
        device: where the noise is wanted.

    Returns:
        (B, N) float32, uniform in [0, 1).
    """
    return torch.rand(batch, patches, generator=generator, device=generator.device).to(device)


def kept_of(patches: int, mask_ratio: float) -> int:
    """Return how many of some patches are kept: (1 - mask_ratio) of them, rounded down, at least one and never all.

    Raises:
        UsageError: for a ratio outside (0, 1), or a single patch, of which nothing can be hidden.
    """
    if not 0 < mask_ratio < 1:
        raise UsageError(f"mask ratio {mask_ratio} isn't between 0 and 1", "mask_ratio", "0.75 is usual")
    if patches < 2:
        raise UsageError("a scan of one patch can't be masked", "patch_voxels", "use smaller patches or a larger input")
    # 1e-6: 10 · (1 - 0.9) is 0.9999999999999998 in floating point and means 1
    return min(max(int(patches * (1 - mask_ratio) + 1e-6), 1), patches - 1)


def random_keep(noise_BN: Tensor, mask_ratio: float) -> Masking:
    """Keep the patches of least noise: N · (1 - mask_ratio) of them, rounded down, but at least one.

    Args:
        noise_BN: (B, N) from `draw_noise` or a masking's `draw`.
        mask_ratio: share of patches to hide, strictly between 0 and 1.

    Returns:
        The same number of kept patches for each scan.

    Raises:
        UsageError: see `kept_of`.
    """
    kept = kept_of(noise_BN.shape[1], mask_ratio)
    order_BN = noise_BN.argsort(dim=1, stable=True)
    restore_BN = order_BN.argsort(dim=1)
    return Masking(order_BN[:, :kept], restore_BN, (restore_BN >= kept).float())


def foreground_keep(noise_BN: Tensor, mask_ratio: float, foreground: Foreground) -> Masking:
    """Keep the foreground patches of least noise; the others take no part at all.

    Args:
        noise_BN: (B, N) as for `random_keep`.
        mask_ratio: share of each scan's foreground patches to hide, strictly between 0 and 1.
        foreground: which patches those are, at least two of each scan.

    Returns:
        As many kept patches of each scan as `random_keep` would keep of a scan with that many patches. Nothing is
        filled up, and no masks of absent patches are given, where all scans have equally many.

    Raises:
        UsageError: see `kept_of`.
    """
    N = noise_BN.shape[1]
    counts, kept = foreground.counts, [kept_of(count, mask_ratio) for count in foreground.counts]
    if min(counts) == N:
        return random_keep(noise_BN, mask_ratio)
    device = noise_BN.device
    background_BN = ~foreground.patches_BN
    counts_B1, kept_B1 = torch.tensor([counts, kept]).to(device, non_blocking=True).unsqueeze(2)
    K, M = max(kept), max(counts)
    order_BN = (noise_BN + 2 * background_BN).argsort(dim=1, stable=True)
    place_BN = order_BN.argsort(dim=1)
    shown_BM = background_BN.byte().argsort(dim=1, stable=True)[:, :M]
    restore_BM = place_BN.take_along_dim(shown_BM, dim=1)
    return Masking(
        keep_BK=order_BN[:, :K],
        restore_BN=restore_BM.where(restore_BM < kept_B1, K),
        mask_BN=(foreground.patches_BN & (place_BN >= kept_B1)).float(),
        absent_BK=None if min(kept) == K else torch.arange(K, device=device) >= kept_B1,
        shown_BM=shown_BM,
        absent_BM=None if min(counts) == M else torch.arange(M, device=device) >= counts_B1,
    )
