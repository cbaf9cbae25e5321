"""A frozen backbone's work, done once: scans shown whole give the same tokens in every epoch, so they are kept.

B scans, N tokens, D width, F features of a pooled scan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fmct.models.heads import AttentiveHead, LinearHead
from fmct.models.pooling import pooled, with_mirror_image


class EncodedOnce:
    """Keeps what a head reads of every scan, and of its mirror image where that is asked for, in ordinary memory.

    Each scan is encoded by itself and in float32, as evaluation does: its tokens don't depend on its batch mates, nor
    on where a run was interrupted. A linear head's scans are kept pooled, an attentive one's as all their tokens.

    Args:
        backbone: frozen, in evaluation mode.
        head: that reads it.
        whole: turns (1, ...) volumes into (1, C, Z, Y, X) windows.
    """

    def __init__(
        self, backbone: nn.Module, head: LinearHead | AttentiveHead, whole: Callable[[Tensor], Tensor]
    ) -> None:
        self.backbone = backbone
        self.head = head
        self.whole = whole
        self.kept: dict[tuple[str, bool], Tensor] = {}

    def __call__(self, scan_ids: Sequence[str], volumes: Tensor, flipped: Sequence[bool]) -> Tensor:
        """Return what the head reads of a batch.

        Args:
            scan_ids: the scans.
            volumes: (B, ...) as the loader gives them; only those that weren't seen before are encoded.
            flipped: whose mirror images are asked for instead.

        Returns:
            (B, F) for a linear head, (B, N, D) for an attentive one, (B, N, 2 D) for one that is mirrored.
        """
        keys = list(zip(scan_ids, flipped, strict=True))
        for row, (scan, turned) in enumerate(keys):
            if (scan, turned) not in self.kept:
                self._encode(scan, volumes[row : row + 1], turned)
        return torch.stack([self._read(scan, turned) for scan, turned in keys]).to(volumes.device)

    def _encode(self, scan: str, volume: Tensor, turned: bool) -> None:
        """Encode a scan, its mirror image, or both where the head compares them."""
        with torch.no_grad(), torch.autocast(volume.device.type, enabled=False):
            x = self.whole(volume)
            if not self.head.mirrored:
                sides = {turned: self.backbone(x.flip(-1) if turned else x)}
            else:
                own, mirrored = self.backbone(with_mirror_image(x)).split(1)
                sides = {False: own, True: mirrored}
            if isinstance(self.head, LinearHead):
                if self.head.mirrored:
                    sides = {side: torch.cat([sides[side], sides[not side]], -1) for side in sides}
                pooling, prefix = self.head.pooling, self.head.prefix_tokens
                sides = {side: pooled(tokens, pooling, prefix) for side, tokens in sides.items()}
            self.kept |= {(scan, side): kept[0].cpu() for side, kept in sides.items()}

    def _read(self, scan: str, turned: bool) -> Tensor:
        own = self.kept[scan, turned]
        if isinstance(self.head, LinearHead) or not self.head.mirrored:
            return own
        return torch.cat([own, self.kept[scan, not turned]], -1)
