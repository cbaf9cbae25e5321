"""Where the slices of a scan are: one representation for DICOM series and NIfTI files, in RAS millimeters.

A CT scan is a stack of parallel planes, and nothing more may be assumed: the gantry may be tilted (planes shift against
each other), and gaps may differ. So each slice keeps its own true position, and no spacing is ever multiplied by an
index. DICOM's patient coordinates are LPS (PS3.3 C.7.6.2); they are turned into RAS once, at reading.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
PADDING_HU = -32768
"""Marks pixels that hold no measurement (outside the scan circle); clamping turns them into air."""
FEWEST_SLICES = 8
"""Fewer can't show a head: at 5 mm they would cover less than 40 mm of it."""

Vectors = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SliceStack:
    """Parallel slices in order along their normal.

    Attributes:
        hu: (K, J, I) int16, slices x rows x columns, Hounsfield units as measured, `PADDING_HU` where nothing was.
        origins_ras_mm: (K, 3) center of the first pixel of each slice.
        row_step_ras_mm: (3,) from one row to the next (j to j + 1).
        column_step_ras_mm: (3,) from one column to the next (i to i + 1).

    Raises:
        ValueError: on shapes that don't fit, fewer than two slices, or positions that don't increase along the normal.
    """

    hu: NDArray[np.int16]
    origins_ras_mm: Vectors
    row_step_ras_mm: Vectors
    column_step_ras_mm: Vectors

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or self.origins_ras_mm.shape != (self.hu.shape[0], 3):
            raise ValueError(f"slices {self.hu.shape} don't fit origins {self.origins_ras_mm.shape}")
        if self.hu.shape[0] < 2 or (self.gaps_mm <= 0).any():
            raise ValueError("a stack has at least two slices, in order along their normal")

    @property
    def normal_ras(self) -> Vectors:
        """(3,) unit normal of the slices, in the direction in which they are ordered."""
        normal = unit_normal(self.row_step_ras_mm, self.column_step_ras_mm)
        along = (self.origins_ras_mm[-1] - self.origins_ras_mm[0]) @ normal
        return normal if along >= 0 else -normal

    @property
    def positions_mm(self) -> Vectors:
        """(K,) position of each slice along the normal."""
        return self.origins_ras_mm @ self.normal_ras

    @property
    def gaps_mm(self) -> Vectors:
        """(K - 1,) distance of neighboring slices along the normal."""
        return np.diff(self.positions_mm)

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Distance of neighboring rows and of neighboring columns."""
        return float(np.linalg.norm(self.row_step_ras_mm)), float(np.linalg.norm(self.column_step_ras_mm))

    def thinned(self, distance_mm: float) -> SliceStack:
        """Return every n-th slice, row and column, n such that they stay within `distance_mm`: a quick preview."""
        row_mm, column_mm = self.pixel_mm
        rows, columns = (max(int(distance_mm / step), 1) for step in (row_mm, column_mm))
        slices = max(int(distance_mm / float(self.gaps_mm.max())), 1) if len(self.hu) > 2 else 1
        slices = min(slices, len(self.hu) - 1)
        return SliceStack(
            self.hu[::slices, ::rows, ::columns],
            self.origins_ras_mm[::slices],
            self.row_step_ras_mm * rows,
            self.column_step_ras_mm * columns,
        )

    def bounds_ras_mm(self) -> tuple[Vectors, Vectors]:
        """Return the lowest and the highest RAS coordinates of the stack, pixels and slices taken with their extent."""
        _, j, i = self.hu.shape
        rows = np.array([-0.5, j - 0.5])[:, None] * self.row_step_ras_mm
        columns = np.array([-0.5, i - 0.5])[:, None] * self.column_step_ras_mm
        plane = (rows[:, None] + columns[None]).reshape(4, 3)
        half_gaps = np.array([[-self.gaps_mm[0]], [self.gaps_mm[-1]]]) / 2
        ends = self.origins_ras_mm[[0, -1]] + half_gaps * self.normal_ras
        corners = np.concatenate([self.origins_ras_mm, ends])[:, None] + plane
        return corners.min(axis=(0, 1)), corners.max(axis=(0, 1))


def unit_normal(row_step: Vectors, column_step: Vectors) -> Vectors:
    """Return the unit vector across a plane, pointing up (S), or else to A, or else to R."""
    normal = np.cross(column_step, row_step)
    normal = normal / np.linalg.norm(normal)
    for axis in (2, 1, 0):
        if abs(normal[axis]) > 1e-6:
            return normal if normal[axis] > 0 else -normal
    return normal


def gantry_tilt_deg(origins: Vectors, normal: Vectors) -> float:
    """Return the angle between the slices' normal and the direction in which they are stacked, degrees, 0 to 90.

    With a tilted gantry the table still moves straight on, so slices shift against each other and this angle is the
    tilt; an oblique reformat moves along its own normal and has none. GantryDetectorTilt is of no use: vendors disagree
    on its sign.

    Args:
        origins: (K, 3) positions of the slices, in order, in any frame.
        normal: (3,) unit normal in the same frame.
    """
    travel = origins[-1] - origins[0]
    along, across = abs(float(travel @ normal)), float(np.linalg.norm(np.cross(travel, normal)))
    return float(np.degrees(np.arctan2(across, along)))


def stack_from_affine(values: NDArray[np.int16], affine_ras: Vectors) -> SliceStack:
    """Make a stack of a regular grid with any affine, whatever the storage order of its axes.

    The axis that runs closest to the body's axis (z) becomes the slices; of the others, the one closest to x becomes
    the columns. Axes are then turned to increase towards R, A and S, so that every way of storing the same picture
    gives the same stack.

    Args:
        values: (A, B, C) HU as stored.
        affine_ras: (4, 4) voxel index to RAS millimeters; may rotate and shear.
    """
    steps = affine_ras[:3, :3].T
    directions = np.abs(steps) / np.linalg.norm(steps, axis=1, keepdims=True)
    slice_axis = int(directions[:, 2].argmax())
    in_plane = [axis for axis in range(3) if axis != slice_axis]
    column_axis = max(in_plane, key=lambda axis: directions[axis, 0])
    order = [slice_axis, next(axis for axis in in_plane if axis != column_axis), column_axis]
    stored, steps = values.transpose(order), steps[order]
    origin = affine_ras[:3, 3].copy()
    for axis in range(3):
        main = int(np.abs(steps[axis]).argmax())
        if steps[axis, main] < 0:
            origin += steps[axis] * (stored.shape[axis] - 1)
            steps[axis] *= -1
            stored = np.flip(stored, axis)
    origins = origin + np.arange(stored.shape[0])[:, None] * steps[0]
    return SliceStack(stored, origins, steps[1], steps[2])
