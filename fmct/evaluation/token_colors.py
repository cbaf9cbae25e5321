"""Colors of patches by their tokens: the first three principal components as red, green and blue.

As in figure 1 of DINOv2 (Oquab et al. 2023, arXiv 2304.07193), which finds the object by the sign of a first component.
A head needs no guess: air is known by its HU, so that components are of the foreground alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from fmct.console.errors import UsageError

COLORS = 3
TAILS = 0.02
"""So much of the patches at either end of a component share the darkest and the brightest value."""

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class TokenColors:
    """Components that colors stand for, found once: a color then means the same in all scans.

    Attributes:
        components: fitted, with signs that depend on the tokens alone.
        low: (3,) what is 0 in a picture.
        high: (3,) what is 1.
    """

    components: PCA
    low: Floats
    high: Floats

    @classmethod
    def of(cls, tokens_ND: Floats, foreground_N: NDArray[np.bool_]) -> TokenColors:
        """Find the components of the tokens of a scan's foreground.

        Args:
            tokens_ND: patch tokens.
            foreground_N: which of them are of the head.

        Raises:
            UsageError: when there are fewer patches of foreground than colors.
        """
        chosen = tokens_ND[foreground_N].astype(np.float64)
        if min(chosen.shape) < COLORS:
            raise UsageError(
                f"{len(chosen)} patches of a head, of width {tokens_ND.shape[1]}, have no {COLORS} components",
                "the map `pca`",
                "leave pca out of --maps, or use weights with smaller patches",
            )
        components = PCA(COLORS, svd_solver="full").fit(chosen)
        low, high = np.quantile(components.transform(chosen), [TAILS, 1 - TAILS], axis=0)
        return cls(components, low, high)

    def paint(self, tokens_ND: Floats, foreground_N: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Color patches: (N, D) tokens -> (N, 3) in [0, 1], 0 where a patch is air."""
        values = self.components.transform(tokens_ND.astype(np.float64))
        scaled = np.clip((values - self.low) / np.maximum(self.high - self.low, 1e-12), 0, 1)
        return np.where(foreground_N[:, None], scaled, 0).astype(np.float32)
