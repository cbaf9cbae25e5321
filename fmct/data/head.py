"""Where the head is in a scan: what of it is kept, without table, head rest and neck.

Found on a coarse preview: tissue is thinned until table and head rest come off, the largest piece that is left is grown
back within tissue (ears, nose), its cavities are filled, and everything further below the vertex than a head is high is
cut off. A hollow skull (a phantom) falls apart when thinned; it is filled first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmct.data.geometry import SliceStack, Vectors
from fmct.data.grid import Grid
from fmct.data.resampling import resample

Mask = NDArray[np.bool_]

COARSE_MM = 3.0
PREVIEW_MM = 2.0
TISSUE_HU = -300
BONE_HU = 300
THINNING_VOXELS = 2
REGROWTH_VOXELS = 6
CLOSING_VOXELS = 2
BONE_WEIGHT = 10
LEAST_BONE_SHARE = 0.5
SMALLEST_HEAD_ML = 100.0
CRANIUM_MM = 130.0
SPARE_MM = 6.0
SHOULDER_RATIO = 1.4
EQUIPMENT_MM = 45.0
EQUIPMENT_HU = -700
SHELL_HU = -700
OPEN_SLICES_MM = 60.0
NEIGHBORS = ndimage.generate_binary_structure(3, 1)


@dataclass(frozen=True, eq=False)
class Head:
    """What to keep of a scan.

    Attributes:
        mask: (Z, Y, X) the head, cavities filled, with its margin, down to the cut.
        grid: the coarse grid of the mask.
        low_ras_mm: (3,) lowest coordinates of the head, without margin.
        high_ras_mm: (3,) highest ones.
        cranium_low_ras_mm: (3,) the same of its upper part, `CRANIUM_MM` high.
        cranium_high_ras_mm: (3,) the same.
    """

    mask: Mask
    grid: Grid
    low_ras_mm: Vectors
    high_ras_mm: Vectors
    cranium_low_ras_mm: Vectors
    cranium_high_ras_mm: Vectors

    def mask_on(self, grid: Grid) -> Mask:
        """Return the mask on another grid, by the nearest voxel; False beyond its own."""
        picks = [
            np.clip(np.rint((grid.centers_mm(axis) - self.grid.first_ras_mm[axis]) / self.grid.spacing_mm), -1, count)
            for axis, count in zip((2, 1, 0), self.grid.shape_zyx, strict=True)
        ]
        on_grid: Mask = np.pad(self.mask, 1)[np.ix_(*(pick.astype(int) + 1 for pick in picks))]
        return on_grid

    def center_ras_mm(self, size_mm: float) -> Vectors:
        """Return where a cube is to be centered: on the head, but what doesn't fit is cut from the face."""
        center: Vectors = (self.cranium_low_ras_mm + self.cranium_high_ras_mm) / 2
        center[1] = min(center[1], self.cranium_low_ras_mm[1] - SPARE_MM + size_mm / 2)
        center[2] = (self.low_ras_mm[2] + self.high_ras_mm[2]) / 2
        return center

    def holds(self, point_ras_mm: Vectors) -> bool:
        """Tell whether a point lies within the extent of the upper part."""
        return bool(((point_ras_mm >= self.cranium_low_ras_mm) & (point_ras_mm <= self.cranium_high_ras_mm)).all())

    def beyond_mm(self, grid: Grid) -> float:
        """Return how far the head reaches out of a grid, on the side where it is most."""
        low = grid.first_ras_mm - grid.spacing_mm / 2
        high = low + np.array(grid.shape_zyx[::-1]) * grid.spacing_mm
        return float(max((low - self.low_ras_mm).max(), (self.high_ras_mm - high).max(), 0.0))


def find_head(stack: SliceStack, height_mm: float, margin_mm: float) -> Head | None:
    """Find the head in a scan.

    Args:
        stack: the scan; patient coordinates tell up from down.
        height_mm: how much is kept below the vertex, or below the top of the scan where that lies lower.
        margin_mm: how far around the head the scan is kept.

    Returns:
        The head, or None where nothing could be one.
    """
    preview = stack.thinned(PREVIEW_MM)
    grid = Grid.covering(*preview.bounds_ras_mm(), COARSE_MM)
    hu = resample(preview, grid)
    head = head_tissue(hu)
    if head is None:
        return None
    top = int(np.flatnonzero(head.any(axis=(1, 2)))[-1]) + 1
    cranium = head.copy()
    cranium[: max(top - round(CRANIUM_MM / COARSE_MM), 0)] = False
    bottom = max(top - round(height_mm / COARSE_MM), shoulders(head, cranium), 0)
    head[:bottom] = False
    head = filled(head)
    skin = ndimage.binary_dilation(head, NEIGHBORS)
    equipment = large_pieces((hu > EQUIPMENT_HU) & ~skin)
    kept = ndimage.binary_dilation(head, NEIGHBORS, iterations=max(round(margin_mm / COARSE_MM), 1))
    kept &= ~ndimage.binary_dilation(equipment, NEIGHBORS) | skin
    kept[:bottom] = False
    return Head(kept, grid, *extent_mm(head, grid), *extent_mm(cranium & head, grid))


def shoulders(head: Mask, cranium: Mask) -> int:
    """Return the lowest axial plane that is above the shoulders: nothing that belongs to a head is so much wider."""
    widths = np.array([np.ptp(np.flatnonzero(plane.any(axis=0))) if plane.any() else 0 for plane in head])
    too_wide = np.flatnonzero(widths > SHOULDER_RATIO * widths[cranium.any(axis=(1, 2))].max())
    return int(too_wide[-1]) + 1 if too_wide.size else 0


def large_pieces(tissue: Mask) -> Mask:
    """Return the pieces of what isn't head that are longer than an ear or a nose: table and head rest."""
    pieces, _ = ndimage.label(tissue, NEIGHBORS)
    boxes = ndimage.find_objects(pieces)
    longest = [max(side.stop - side.start for side in box) * COARSE_MM for box in boxes]
    large: Mask = np.array([False, *(length > EQUIPMENT_MM for length in longest)])[pieces]
    return large


def head_tissue(hu: NDArray[np.int16]) -> Mask | None:
    """Return the tissue of the head and what hangs on to it, None where there is too little.

    Args:
        hu: (Z, Y, X) at `COARSE_MM`.
    """
    tissue, bone = hu > TISSUE_HU, hu > BONE_HU
    core = largest_piece(tissue, bone)
    if core is None or np.count_nonzero(bone & core) < LEAST_BONE_SHARE * np.count_nonzero(bone):
        tissue = filled(hu > SHELL_HU)
        core = largest_piece(tissue, bone)
        if core is not None:
            core = tissue = closed_upwards(core)
    if core is None or np.count_nonzero(core) * COARSE_MM**3 / 1000 < SMALLEST_HEAD_ML:
        return None
    grown: Mask = ndimage.binary_dilation(core, NEIGHBORS, iterations=REGROWTH_VOXELS, mask=tissue)
    return grown


def largest_piece(tissue: Mask, bone: Mask) -> Mask | None:
    """Return the largest piece of tissue that stays in one when thin things come off; bone counts more than tissue."""
    thinned = ndimage.binary_erosion(tissue, NEIGHBORS, iterations=THINNING_VOXELS, border_value=1)
    pieces, count = ndimage.label(thinned, NEIGHBORS)
    if count == 0:
        return None
    sizes = np.bincount(pieces.ravel(), weights=np.where(bone, BONE_WEIGHT, 1).ravel())
    largest = pieces == 1 + int(sizes[1:].argmax())
    piece: Mask = ndimage.binary_dilation(largest, NEIGHBORS, iterations=THINNING_VOXELS, mask=tissue)
    return piece


def closed_upwards(mask: Mask) -> Mask:
    """Return the mask with gaps between axial slices closed, where a shell was open and so could not be filled."""
    reach = int(OPEN_SLICES_MM / 2 / COARSE_MM)
    padded = np.pad(mask, ((reach, reach), (0, 0), (0, 0)))
    closed: Mask = ndimage.binary_closing(padded, np.ones((2 * reach + 1, 1, 1), bool))[reach:-reach]
    return closed


def filled(mask: Mask) -> Mask:
    """Return the mask with its cavities (sinuses, airways, a hollow skull) filled, axial slice by axial slice."""
    closed = ndimage.binary_closing(np.pad(mask, CLOSING_VOXELS, mode="edge"), NEIGHBORS, iterations=CLOSING_VOXELS)
    inner = slice(CLOSING_VOXELS, -CLOSING_VOXELS)
    return np.stack([ndimage.binary_fill_holes(plane) for plane in closed[inner, inner, inner] | mask])


def extent_mm(mask: Mask, grid: Grid) -> tuple[Vectors, Vectors]:
    """Return the lowest and highest RAS coordinates of a mask that isn't empty, voxels taken with their extent."""
    indices = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in (2, 1, 0)]
    low = np.array([index[0] - 0.5 for index in indices]) * grid.spacing_mm + grid.first_ras_mm
    high = np.array([index[-1] + 0.5 for index in indices]) * grid.spacing_mm + grid.first_ras_mm
    return low, high
