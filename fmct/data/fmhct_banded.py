"""Banded matrices along one axis of an array: every linear step of the preset `fmhct` is one, axis by axis.

A resampled voxel depends on a few neighbors only, so blocks of rows have narrow windows of columns: each block is one
small matrix product in float32 that stays within the processor's cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROWS_AT_ONCE = 16
"""Of a block: fewer waste the processor's vectors, more multiply zeros."""

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Banded:
    """A matrix, kept as blocks of rows.

    Attributes:
        shape: rows (outputs) and columns (inputs).
        blocks: rows, the columns that they need, and the weights (rows, columns) float32.
    """

    shape: tuple[int, int]
    blocks: tuple[tuple[slice, slice, Array], ...]

    @classmethod
    def of(cls, weights: NDArray[np.float64]) -> Banded:
        """Make one of a dense matrix (N, M); no row of it may be zero."""
        used = weights != 0
        first, end = used.argmax(axis=1), used.shape[1] - used[:, ::-1].argmax(axis=1)
        blocks = []
        for start in range(0, len(weights), ROWS_AT_ONCE):
            rows = slice(start, min(start + ROWS_AT_ONCE, len(weights)))
            columns = slice(int(first[rows].min()), int(end[rows].max()))
            blocks.append((rows, columns, np.ascontiguousarray(weights[rows, columns], np.float32)))
        return cls((weights.shape[0], weights.shape[1]), tuple(blocks))

    def along_rows(self, values: Array, out: Array) -> Array:
        """Multiply along the last axis: (L, M) to (L, N), written to `out`."""
        for rows, columns, weights in self.blocks:
            np.matmul(values[:, columns], weights.T, out=out[:, rows])
        return out

    def along_columns(self, values: Array, out: Array) -> Array:
        """Multiply along the first axis: (M, L) to (N, L), written to `out`."""
        for rows, columns, weights in self.blocks:
            np.matmul(weights, values[columns], out=out[rows])
        return out
