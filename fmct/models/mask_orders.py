"""In which order patches of a scan are hidden: at random, or whole blocks of neighbors first.

Drawn on the host from one generator per scan, so that a scan's mask depends on no other. B scans, N patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from fmct.experiment.config import Config

Grid = tuple[int, int, int]
BLOCKS_PER_SCAN = 64
"""So many blocks cover nine tenths of the grid; what they leave over is hidden last."""


def stacked(drawn: Sequence[NDArray[np.float32]]) -> Tensor:
    """Put one array per scan into a tensor, (B, N) float32."""
    return torch.from_numpy(np.stack(drawn))


class RandomMasking(Config):
    """Each patch by itself (He et al. 2022, arXiv 2111.06377)."""

    kind: Literal["random"] = "random"

    def draw(self, generators: Sequence[np.random.Generator], grid_zyx: Grid) -> Tensor:
        """Draw (B, N) float32 in [0, 1): patches of greatest values are hidden first."""
        return stacked([g.random(math.prod(grid_zyx), dtype=np.float32) for g in generators])


class BlockMasking(Config):
    """Cuboids first, so that what is hidden can't be guessed from its neighbors.

    Blocks as in BEiT (Bao et al. 2022, arXiv 2106.08254, algorithm 1) and V-JEPA (Bardes et al. 2024, arXiv
    2404.08471), in three dimensions. Blocks are hidden one after the other; the last one is cut by a
    plane, so that the number of hidden patches is exact.
    """

    kind: Literal["block"] = "block"
    share: tuple[float, float] = Field((0.03, 0.15), description="least and greatest share of a view that a block has")
    aspect: float = Field(2.0, ge=1, le=8, description="greatest ratio of two sides of a block")

    @model_validator(mode="after")
    def _share_is_a_range(self) -> BlockMasking:
        low, high = self.share
        if not 0 < low <= high <= 1:
            raise ValueError(f"share must satisfy 0 < least <= greatest <= 1, not {low} and {high}")
        return self

    def draw(self, generators: Sequence[np.random.Generator], grid_zyx: Grid) -> Tensor:
        """Draw (B, N) float32 in [0, 1): patches of greatest values are hidden first, those of one block together."""
        return stacked([self._draw_one(g, grid_zyx) for g in generators])

    def _draw_one(self, generator: np.random.Generator, grid_zyx: Grid) -> NDArray[np.float32]:
        sizes = np.array(grid_zyx)
        low, high = np.log(self.share)
        log_share = generator.uniform(low, high, (BLOCKS_PER_SCAN, 1))
        stretch = generator.uniform(-0.5, 0.5, (BLOCKS_PER_SCAN, 3)) * math.log(self.aspect)
        sides = np.exp(log_share / 3 + stretch - stretch.mean(1, keepdims=True))
        lengths = np.clip(np.rint(sides * sizes), 1, sizes).astype(int)
        starts = generator.integers(0, sizes - lengths + 1)
        within = [
            (np.arange(n) >= start[:, None]) & (np.arange(n) < (start + length)[:, None])
            for n, start, length in zip(grid_zyx, starts.T, lengths.T, strict=True)
        ]
        covered = within[0][:, :, None, None] & within[1][:, None, :, None] & within[2][:, None, None, :]
        first = np.where(covered.any(0), covered.argmax(0), BLOCKS_PER_SCAN).ravel()
        planes = generator.uniform(-1, 1, (BLOCKS_PER_SCAN + 1, 3))
        planes /= np.abs(planes).sum(1, keepdims=True)
        centers = np.stack(np.meshgrid(*((np.arange(n) + 0.5) / n for n in grid_zyx), indexing="ij"), -1).reshape(-1, 3)
        along = (planes[first] * (2 * centers - 1)).sum(1) / 2 + 0.5
        return np.asarray((BLOCKS_PER_SCAN - first + along) / (BLOCKS_PER_SCAN + 1), np.float32)


MaskingConfig = Annotated[RandomMasking | BlockMasking, Field(discriminator="kind")]
