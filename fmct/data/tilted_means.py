"""Means over voxels of slices that are turned about x, by a gantry tilt or an oblique reformat.

Along y and z, a voxel is cut into parts. In each, the weights of the two slices around it are those at its middle;
along the rows of both slices the mean is exact. Against the exact mean of a real head this is off by at most a few HU
at the edge of bone: well below the noise of a head CT.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fmct.data.footprint import Floats, bracket, even_footprint
from fmct.data.geometry import SliceStack

PARTS_PER_SLICE = 6
FEWEST_PARTS = 2
"""Along an axis: for each slice that a voxel crosses there, and at all."""
ROUNDING = 1e-6

Ints = NDArray[np.intp]


class TiltedMeans:
    """The weights of rows of slices in the means over voxels of the yz plane.

    Args:
        stack: its slices run along x.
        width_mm: extent of a voxel.
        preview: don't cut voxels.
    """

    def __init__(self, stack: SliceStack, width_mm: float, preview: bool = False) -> None:
        self.rows = stack.hu.shape[1]
        gaps, origins, step = stack.gaps_mm, stack.origins_ras_mm[:, 1:], stack.row_step_ras_mm[1:]
        self.normal, self.row_step = stack.normal_ras[1:], step / (step @ step)
        self.positions, self.first_rows = origins @ self.normal, origins @ self.row_step
        self.ends = self.positions[0] - gaps[0] / 2, self.positions[-1] + gaps[-1] / 2
        crossed = PARTS_PER_SLICE * width_mm * np.abs(self.normal) / float(np.median(gaps))
        counts = np.ones(2, int) if preview else np.maximum(np.ceil(crossed), FEWEST_PARTS).astype(int)
        offsets = (((np.arange(count) + 0.5) / count - 0.5) * width_mm for count in counts)
        self.parts = [axis.reshape(-1, 1) for axis in np.meshgrid(*offsets, indexing="ij")]
        self.depth = float(width_mm / counts @ np.abs(self.normal))
        self.extent = float(np.hypot(*(width_mm / counts * self.row_step)))
        """Of a part, across the slices in mm, and along the rows in rows, as the box of the same spread."""
        spread = float(np.abs(self.along_rows(*self.parts)).max()) + ROUNDING
        self.before = spread + self.extent / 2
        self.window = 1 << int(2 * spread + np.ceil(self.extent) + 2).bit_length()
        """Rows from the first that a voxel takes of a slice to its middle, and room for all that it takes of it."""

    def weights(self, y_mm: Floats, z_mm: Floats) -> csr_array:
        """Return the weights for some voxels.

        Args:
            y_mm: (N,) centers of the voxels, N > 0.
            z_mm: (N,) likewise.

        Returns:
            (N, K * J) float32, sparse.
        """
        y, z = y_mm + self.parts[0], z_mm + self.parts[1]
        depth = y * self.normal[0] + z * self.normal[1]
        below, to_upper, _ = bracket(depth, self.positions)
        slices = np.stack([below, below + 1])
        weights, sources = even_footprint(self.along_rows(y, z) - self.first_rows[slices], self.extent, self.rows)
        share = self.within(depth) / np.float32(len(y))
        to_upper = to_upper.astype(np.float32)
        weights *= np.stack([(1 - to_upper) * share, to_upper * share])

        shape = (len(y_mm), len(self.positions) * self.rows)
        if len(y) == 1:
            sources += (slices * self.rows).astype(np.int32)
            entries, columns = (np.ascontiguousarray(a.reshape(-1, len(y_mm)).T).ravel() for a in (weights, sources))
            return csr_array((entries, columns, np.arange(len(y_mm) + 1) * 2 * len(weights)), shape=shape)
        # the parts of a voxel share rows: their weights are summed in a window of each slice that it crosses
        lowest, middle = below.min(axis=0), self.along_rows(y_mm, z_mm)
        crossed = int((slices - lowest).max()) + 1
        numbers = np.arange(len(y_mm)) * crossed - lowest
        sources += ((slices + numbers) * self.window - self.start(middle, slices)).astype(np.int32)
        bins = len(y_mm) * crossed * self.window
        summed = np.bincount(sources.ravel(), weights.ravel(), bins).astype(np.float32)
        slices = lowest[:, None] + np.arange(crossed)
        first = slices * self.rows + self.start(middle[:, None], np.minimum(slices, len(self.positions) - 1))
        used = np.flatnonzero(summed != 0)
        columns = first.ravel()[used >> (self.window.bit_length() - 1)] + (used & (self.window - 1))
        ends = np.searchsorted(used, np.arange(len(y_mm) + 1) * (crossed * self.window))
        return csr_array((summed[used], columns, ends), shape=shape)

    def along_rows(self, y_mm: Floats, z_mm: Floats) -> Floats:
        """Return how many rows points lie further than the origin of coordinates."""
        rows: Floats = y_mm * self.row_step[0] + z_mm * self.row_step[1]
        return rows

    def start(self, middle: Floats, slices: Ints) -> Ints:
        """Return where the window of a voxel begins among the rows of a slice, by where its middle lies."""
        first = np.floor(middle - self.first_rows[slices] - self.before)
        return np.clip(first, 0, max(self.rows - self.window, 0)).astype(np.intp)

    def within(self, depth_mm: Floats) -> NDArray[np.float32]:
        """Return which share of parts (P, N), by the depth of their middles, lies within the scan."""
        share: Floats = np.clip((depth_mm - self.ends[0]) / self.depth + 0.5, 0, 1)
        share *= np.clip((self.ends[1] - depth_mm) / self.depth + 0.5, 0, 1)
        return share.astype(np.float32)
