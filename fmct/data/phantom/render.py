"""Sample a head with couch and head rest on a cubic grid in patient coordinates (RAS, mm)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from fmct.data.phantom.anatomy import Anatomy
from fmct.data.phantom.couch import couch_hu
from fmct.data.phantom.effects import Rest
from fmct.data.phantom.findings import Finding
from fmct.data.phantom.head import HeadParameters, Triple
from fmct.data.phantom.shapes import Array, Indices
from fmct.data.phantom.skull import AIR_HU

CHUNK_POINTS = 24_000  # arrays of a chunk stay in the processor's cache, and under malloc's threshold for fresh pages
BAND_ROWS = 24  # of a block, so that those beyond the slices can be left out
HEAD_RADIUS_MM = (100.0, 124.0, 240.0)  # of a box that holds every head with nose and ears, about its center


@dataclass(frozen=True)
class Grid:
    """A cubic grid; axes z, y, x run superior, anterior, right.

    Attributes:
        origin_mm: x, y, z of the first voxel's center.
        step_mm: distance of the voxels.
        shape_zyx: numbers of voxels.
    """

    origin_mm: Triple
    step_mm: float
    shape_zyx: tuple[int, int, int]

    def axis_mm(self, axis: int) -> Array:
        """Return the coordinates along x (0), y (1) or z (2)."""
        count = self.shape_zyx[2 - axis]
        return np.float32(self.origin_mm[axis]) + np.arange(count, dtype=np.float32) * np.float32(self.step_mm)

    @classmethod
    def spanning(cls, low_mm: Triple, high_mm: Triple, step_mm: float) -> Grid:
        """Return the grid that covers a box."""
        counts = [int(np.ceil((high - low) / step_mm)) + 1 for low, high in zip(low_mm, high_mm, strict=True)]
        return cls(low_mm, step_mm, (counts[2], counts[1], counts[0]))


@dataclass(frozen=True)
class Band:
    """What lies between two planes that contain the direction of x: all that the slices of a tilted gantry can see.

    Attributes:
        slope: of the planes; `z + slope * y` is the same all over one of them.
        low_mm, high_mm: that sum on the lower and on the upper plane.
    """

    slope: float
    low_mm: float
    high_mm: float

    def meets(self, y_mm: Array, z_mm: Array) -> bool:
        """Return whether a box, of all x, from first to last of the given y and z has a point in it."""
        ends = [float(z) + self.slope * float(y) for z in (z_mm[0], z_mm[-1]) for y in (y_mm[0], y_mm[-1])]
        return max(ends) >= self.low_mm and min(ends) <= self.high_mm


@dataclass(frozen=True)
class Rendering:
    """A sampled head.

    Attributes:
        grid: where the voxels are, in patient coordinates.
        hu: (Z, Y, X) float32.
        lesions: each finding's share of every voxel, (Z, Y, X) float32 in [0, 1], by name.
    """

    grid: Grid
    hu: Array
    lesions: dict[str, Array] = field(default_factory=dict)

    def volume_ml(self, name: str) -> float:
        """Return the volume of a finding."""
        return float(self.lesions[name].sum(dtype=np.float64)) * self.grid.step_mm**3 / 1000.0


def head_box(head: HeadParameters, margin_mm: float = 4.0) -> tuple[Triple, Triple]:
    """Return the lowest and highest corner of what a scan of this head covers, in patient coordinates."""
    x, y, z = head.pose.shift_mm
    width, length, height = head.scale
    low = (x - 98.0 * width, y - 128.0 * length, z - head.pose.neck_mm)
    high = (x + 98.0 * width, y + 108.0 * length, z + 96.0 * height + head.pose.vertex_mm)
    return (low[0] - margin_mm, low[1] - margin_mm, low[2]), (high[0] + margin_mm, high[1] + margin_mm, high[2])


def render(
    head: HeadParameters,
    grid: Grid,
    findings: Sequence[Finding] = (),
    couch: bool = True,
    rest: Rest = "cup",
    band: Band | None = None,
) -> Rendering:
    """Sample a head, its findings and what it lies on.

    Args:
        head: whose head, and how it lies.
        grid: where to sample.
        findings: what to paint into it, in this order.
        couch: whether couch and head rest are there.
        rest: which kind of head rest.
        band: what is needed of the head; beyond it there may be air. None needs all.

    Returns:
        HU and the findings' masks on the grid.
    """
    anatomy = Anatomy(head, findings)
    x, y, z = (grid.axis_mm(axis) for axis in range(3))
    hu = np.full(grid.shape_zyx, AIR_HU, np.float32)
    lesions: dict[str, Array] = {}
    center = np.array(head.pose.shift_mm)
    near_x = np.flatnonzero(np.abs(x - center[0]) < HEAD_RADIUS_MM[0] * head.scale[0] + 4.0)
    near_y = np.flatnonzero(np.abs(y - center[1] + 8.0) < HEAD_RADIUS_MM[1] * head.scale[1] + 4.0)
    for block in blocks(z.size, near_y, near_x, near_y.size if band is None else BAND_ROWS):
        if band is not None and not band.meets(y[block[1]], z[block[0]]):
            continue
        points = np.stack([a.ravel() for a in np.meshgrid(z[block[0]], y[block[1]], x[block[2]], indexing="ij")[::-1]])
        values, shares = anatomy.hu(head.pose.to_head(points), grid.step_mm)
        hu[block] = values.reshape(hu[block].shape)
        for name, share in shares.items():
            lesions.setdefault(name, np.zeros(grid.shape_zyx, np.float32))[block] = share.reshape(hu[block].shape)
    if couch:
        np.maximum(hu, couch_hu(head, x, y, grid.step_mm, rest)[None], out=hu)
    return Rendering(grid, hu, lesions)


def blocks(planes: int, rows: Indices, columns: Indices, most_rows: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield blocks of about `CHUNK_POINTS` voxels at most that cover all planes in a range of rows and columns."""
    if not (rows.size and columns.size):
        return
    across = slice(int(columns[0]), int(columns[-1]) + 1)
    rows_at_once = max(1, min(rows.size, most_rows, CHUNK_POINTS // columns.size))
    planes_at_once = max(1, CHUNK_POINTS // (columns.size * rows_at_once))
    end = int(rows[-1]) + 1
    for plane in range(0, planes, planes_at_once):
        for row in range(int(rows[0]), end, rows_at_once):
            yield slice(plane, plane + planes_at_once), slice(row, min(row + rows_at_once, end)), across
