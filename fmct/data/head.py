"""Where the head is in a scan: what of it is kept, without table, head rest, neck, and whatever else lies around.

Found on a coarse preview, in this order:

1. Tissue is thinned until thin things come off; of the pieces left, the one around the brain is the head (see
   `tissue_pieces`). Arms that lie against it are divided from it where the bridge between them is narrowest.
2. It grows back within tissue, without what stands upright like no part of a face (table, walls of a head rest).
3. Its cavities are filled: that gives a solid body, on which ears and nose are what is small and close. What goes on
   for longer (tubes, wires, masks, frames) is cut off close to the skin. Above the face nothing is added but skin.
4. All that is further below the vertex than a head is high is cut off, and so are shoulders.

Where a brain isn't known, the largest body is taken for a head. On the volume's own voxels the skin is then found once
more, so that the air around it can be set to air.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmct.data.bit_masks import BitMask, moved
from fmct.data.bit_words import to_bools
from fmct.data.coarse_slices import coarse_slices
from fmct.data.geometry import SliceStack, Vectors
from fmct.data.grid import Grid
from fmct.data.recognition import EnclosedBrain
from fmct.data.resampling import resample
from fmct.data.tissue_pieces import EAR_MM, crown_of, largest_body, piece_around, solid_and_parts, standing

COARSE_MM = 2.0
TISSUE_HU = -300
SKIN_HU = -500
"""Halfway between air and tissue, so that the skin stays where it is."""
SMALLEST_HEAD_ML = 100.0
CRANIUM_MM = 130.0
SPARE_MM = 3.0
SHOULDER_RATIO = 1.4
BESIDE_BRAIN_MM = np.array([[55.0, 45.0, 0.0], [55.0, 75.0, 50.0]])
FROM_BRAIN_MM = np.array([[125.0, 125.0, 0.0], [125.0, 145.0, 100.0]])
"""How far a head reaches from its brain, down (L, P, I) and up (R, A, S): from the outermost found, and from the
middle. How far down is the settings' to say; the last of all is to the vertex of the largest head."""
EAR_ZONE_MM, NOSE_ZONE_MM = 50.0, 20.0
SKIN_MM = 2.0
REACH_MM = 4.0


@dataclass(frozen=True, eq=False)
class Head:
    """What to keep of a scan.

    Attributes:
        solid: the head, cavities filled, down to the cut.
        thin: what of it is skin, ears and the like, and one voxel around.
        reach: the head and as much around it as its skin may reach, without what is none of it.
        grid: the coarse grid of both.
        low_ras_mm: (3,) lowest coordinates of the head.
        high_ras_mm: (3,) highest ones.
        cranium_low_ras_mm: (3,) the same of its upper part, `CRANIUM_MM` high.
        cranium_high_ras_mm: (3,) the same.
    """

    solid: BitMask
    thin: BitMask
    reach: BitMask
    grid: Grid
    low_ras_mm: Vectors
    high_ras_mm: Vectors
    cranium_low_ras_mm: Vectors
    cranium_high_ras_mm: Vectors

    def center_ras_mm(self, size_mm: float) -> Vectors:
        """Return where a cube is to be centered: on the upper head, but so that all of it fits.

        What can't fit is cut from the face, not from the back of the head, and from both sides alike.
        """
        center: Vectors = (self.cranium_low_ras_mm + self.cranium_high_ras_mm) / 2
        lowest, highest = self.high_ras_mm - size_mm / 2, self.low_ras_mm + size_mm / 2
        center[1] = min(center[1], self.cranium_low_ras_mm[1] - SPARE_MM + size_mm / 2)
        center = np.where(lowest <= highest, np.clip(center, lowest, highest), center)
        center[2] = (self.low_ras_mm[2] + self.high_ras_mm[2]) / 2
        return center

    def beyond_mm(self, grid: Grid) -> float:
        """Return how far the head reaches out of a grid, on the side where it is most."""
        low, high = grid.bounds_ras_mm
        return float(max((low - self.low_ras_mm).max(), (self.high_ras_mm - high).max(), 0.0))

    def on(self, grid: Grid) -> HeadOnGrid:
        """Return the head on another grid."""
        reach, thin, inner = moved((self.reach, self.thin, self.solid.thinned(steps(SKIN_MM))), self.grid, grid)
        return HeadOnGrid(reach, thin, inner, grid.spacing_mm)


@dataclass(frozen=True, eq=False)
class HeadOnGrid:
    """What is known of a head on the grid of a volume, before its voxels are.

    Attributes:
        reach: as `Head` has it.
        thin: likewise.
        inner: what is within the head for sure.
        spacing_mm: of the grid.
    """

    reach: BitMask
    thin: BitMask
    inner: BitMask
    spacing_mm: float

    @property
    def rows(self) -> NDArray[np.bool_]:
        """(Z, Y) in which rows of voxels there may be any of the head."""
        return np.asarray((self.reach | self.inner).words[:, :-1].any(axis=2))

    def kept(self, hu: NDArray[np.int16], margin_mm: float) -> BitMask:
        """Return which voxels show the head: all within it, and skin as far as it goes, with a margin.

        Args:
            hu: (Z, Y, X) on the grid; what it holds in rows without head doesn't matter.
            margin_mm: what is kept around the skin, which by the extent of voxels and slices is partly air.
        """
        tissue = (BitMask.exceeding(hu, SKIN_HU) & self.reach) | self.inner
        skin = self.inner.grown(round((SKIN_MM + REACH_MM) / self.spacing_mm) + 1, within=tissue)
        skin = skin.grown(round(EAR_MM / self.spacing_mm), within=(tissue & self.thin) | skin)
        return self.inner | (skin.grown(math.ceil(margin_mm / self.spacing_mm - 1e-6)) & self.reach)


def steps(length_mm: float) -> int:
    """Return how many coarse voxels make up a length."""
    return round(length_mm / COARSE_MM)


def find_head(stack: SliceStack, brain: EnclosedBrain | None, height_mm: float, margin_mm: float) -> Head | None:
    """Find the head in a scan.

    Args:
        stack: the scan; patient coordinates tell up from down.
        brain: what the head is to be found around; None takes the largest body there is.
        height_mm: how much is kept below the vertex, or below the top of the scan where that lies lower.
        margin_mm: how much around the skin may be kept.

    Returns:
        The head, or None where nothing could be one.
    """
    grid = preview_grid(stack, brain, height_mm)
    hu = resample(coarse_slices(stack, COARSE_MM, COARSE_MM, grid.bounds_ras_mm), grid, preview=True)
    tissue = BitMask.exceeding(hu, TISSUE_HU)
    walls = standing(tissue, COARSE_MM)
    body = largest_body(hu, tissue - walls, COARSE_MM) if brain is None else piece_around(tissue - walls, grid, brain)
    if body is None or not body.count():
        return None
    planes = np.flatnonzero(body.words.any(axis=(1, 2)))
    top = int(planes[-1]) + 1
    highest = max(top - steps(CRANIUM_MM), 0)
    bottom = max(top - steps(height_mm), shoulders(body, highest, is_narrower(grid, stack)), 0)
    crown = tissue - tissue if brain is None else crown_of(grid, brain)
    solid, parts = solid_and_parts(body, (tissue - walls) | body, crown, ear_zone(grid, brain), COARSE_MM)
    head = solid.above(bottom)
    if head.count() * COARSE_MM**3 / 1000 < SMALLEST_HEAD_ML or not head.above(highest).count():
        return None
    foreign = (walls | (BitMask.exceeding(hu, SKIN_HU) - head.grown(1))).grown(1) - head
    reach = (head.grown(steps(max(margin_mm, REACH_MM))) - foreign).above(bottom)
    return Head(head, parts.grown(1), reach, grid, *extent_mm(head, grid), *extent_mm(head.above(highest), grid))


def preview_grid(stack: SliceStack, brain: EnclosedBrain | None, height_mm: float) -> Grid:
    """Return the coarse grid to look for a head on: around the brain as far as heads go, or the whole scan."""
    low, high = stack.bounds_ras_mm()
    if brain is not None and brain.center_ras_mm is not None:
        assert brain.low_ras_mm is not None
        assert brain.high_ras_mm is not None
        lowest = np.minimum(brain.low_ras_mm - BESIDE_BRAIN_MM[0], brain.center_ras_mm - FROM_BRAIN_MM[0])
        highest = np.maximum(brain.high_ras_mm + BESIDE_BRAIN_MM[1], brain.center_ras_mm + FROM_BRAIN_MM[1])
        lowest[2] = brain.center_ras_mm[2] - height_mm
        low, high = np.maximum(low, lowest), np.minimum(high, highest)
    return Grid.covering(low, high, COARSE_MM)


def ear_zone(grid: Grid, brain: EnclosedBrain | None) -> BitMask:
    """Return where ears and nose are: beside and before a brain, below its middle; nowhere if there is no brain."""
    x, y, z = (grid.centers_mm(axis) for axis in range(3))
    if brain is None or brain.center_ras_mm is None:
        return BitMask.box(z > np.inf, y > np.inf, x > np.inf)
    assert brain.low_ras_mm is not None
    assert brain.high_ras_mm is not None
    beside = (x < brain.low_ras_mm[0]) | (x > brain.high_ras_mm[0])
    along = np.abs(y - brain.center_ras_mm[1]) < EAR_ZONE_MM
    height = (z < brain.center_ras_mm[2]) & (z > brain.low_ras_mm[2] - EAR_ZONE_MM)
    ears = BitMask.box(height, along, beside)
    return ears | BitMask.box(height, y > brain.high_ras_mm[1], np.abs(x - brain.center_ras_mm[0]) < NOSE_ZONE_MM)


def is_narrower(grid: Grid, stack: SliceStack) -> bool:
    """Tell whether a grid leaves out something of the scan on both sides."""
    low, high = stack.bounds_ras_mm()
    ends = grid.centers_mm(0)[[0, -1]] + np.array([-0.5, 0.5]) * grid.spacing_mm
    return bool(ends[0] > low[0] + grid.spacing_mm and ends[1] < high[0] - grid.spacing_mm)


def shoulders(body: BitMask, cranium: int, narrowed: bool) -> int:
    """Return the lowest axial plane that is above the shoulders: nothing that belongs to a head is so much wider.

    Args:
        body: the head and what is below it.
        cranium: the axial plane from which upwards there is none of a neck.
        narrowed: whether the grid is narrower than the scan, because heads are; shoulders fill all of its width.
    """
    sideways = to_bools(np.bitwise_or.reduce(body.words, axis=1))
    first, last = sideways.argmax(axis=1), sideways.shape[1] - 1 - sideways[:, ::-1].argmax(axis=1)
    widths = np.where(sideways.any(axis=1), last - first, 0)
    widest = SHOULDER_RATIO * widths[cranium:].max()
    too_wide = np.flatnonzero(widths[:cranium] > (min(widest, body.columns - 2) if narrowed else widest))
    return int(too_wide[-1]) + 1 if too_wide.size else 0


def extent_mm(mask: BitMask, grid: Grid) -> tuple[Vectors, Vectors]:
    """Return the lowest and highest RAS coordinates of a mask that isn't empty, voxels taken with their extent."""
    indices = [np.flatnonzero(occupied) for occupied in reversed(mask.occupied())]
    low = np.array([index[0] - 0.5 for index in indices]) * grid.spacing_mm + grid.first_ras_mm
    high = np.array([index[-1] + 0.5 for index in indices]) * grid.spacing_mm + grid.first_ras_mm
    return low, high
