"""The space inside the skull, found in a volume from bone and tissue alone, however the head lies.

On a coarse grid, what is neither air, fat nor bone is thinned until brain and what lies outside the skull come apart:
nerves, vessels and the spinal cord leave through holes narrower than `THINNING_MM` twice. Of the large pieces, the one
best surrounded by bone is the brain; it is grown back within tissue, and air that lies against it (after an operation,
or a fracture) is added. A bone of which any voxel within a coarse one is dense counts, so that the thin roofs of
the orbits close.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

COARSE_MM = 3.0
BONE_HU, CAPPED_HU = 200, 400
TISSUE_HU = -30
AIR_HU = -200
SOLID_HU = -300
THINNING_MM = 12.0
SMALLEST_PIECE = 0.2
"""Of the largest one: neck and tongue can be larger than the brain that a scan shows."""
LEAST_BONE_SHARE = 0.5
"""Of the brain's surroundings: 0.9 and more are bone, without half the vault 0.65, around neck and tongue 0.2."""
LEAST_ML = 40.0
AIR_CONTACT_MM2 = 300.0
NEIGHBORS = ndimage.generate_binary_structure(3, 1)


@dataclass(frozen=True, eq=False)
class Intracranial:
    """The space inside the skull on a coarse grid. Axes are z (up), y (front), x (right), lengths in mm.

    Attributes:
        mask: (Z, Y, X) what is inside; up to one coarse voxel short of the bone.
        bone: (Z, Y, X) where there is any dense bone.
        solid: (Z, Y, X) where there is mostly tissue or bone, inside or outside the skull.
        step_mm: side of a coarse voxel.
    """

    mask: Mask
    bone: Mask
    solid: Mask
    step_mm: float

    def volume_ml(self, mask: Mask) -> float:
        """Return the volume of a mask on the coarse grid."""
        return float(np.count_nonzero(mask)) * self.step_mm**3 / 1000


def find_intracranial(hu: NDArray[np.int16], spacing_mm: float, air_hu: int) -> Intracranial | None:
    """Find the space inside the skull.

    Args:
        hu: (Z, Y, X) HU on an axis-aligned RAS grid.
        spacing_mm: distance of voxels.
        air_hu: the value outside the scan.

    Returns:
        The space, or None where no tissue is surrounded by bone.
    """
    factor = max(1, round(COARSE_MM / spacing_mm))
    step = factor * spacing_mm
    bone, mean = pooled(hu > BONE_HU, factor), pooled_mean(hu, factor)
    unseen = beyond_scan(mean <= air_hu)
    tissue = (mean > TISSUE_HU) & ~bone
    thinning = max(1, round(THINNING_MM / step))
    core = ~grown(~(tissue | unseen), thinning) & tissue
    piece = best_enclosed(core, bone, unseen, thinning, step)
    if piece is None:
        return None
    for _ in range(thinning):
        piece = grown(piece, 1) & tissue
    piece |= air_against(piece, (mean < AIR_HU) & ~bone & ~unseen, step)
    return Intracranial(piece, bone, mean > SOLID_HU, step)


def pooled(bone: Mask, factor: int) -> Mask:
    """Return where any voxel of a block is set; incomplete blocks at the far ends are left out."""
    for axis in range(3):
        first, *others = (bone[part] for part in parts_along(bone.shape, axis, factor))
        bone = first.copy()
        for other in others:
            bone |= other
    return bone


def pooled_mean(hu: NDArray[np.int16], factor: int) -> NDArray[np.float32]:
    """Return the mean HU of blocks of voxels, bone capped."""
    fits = factor**3 * max(CAPPED_HU, 1024) <= np.iinfo(np.int16).max
    total: NDArray[np.signedinteger[Any]] = np.minimum(hu, np.int16(CAPPED_HU))
    total = total if fits else total.astype(np.int32)
    for axis in range(3):
        first, *others = (total[part] for part in parts_along(total.shape, axis, factor))
        total = first.copy()
        for other in others:
            total += other
    mean: NDArray[np.float32] = np.divide(total, factor**3, dtype=np.float32)
    return mean


def parts_along(shape: tuple[int, ...], axis: int, factor: int) -> list[tuple[slice, ...]]:
    """Return what picks the first, second, ... voxels of the whole blocks along an axis."""
    whole = shape[axis] // factor * factor
    return [(slice(None),) * axis + (slice(first, whole, factor),) for first in range(factor)]


def beyond_scan(padding: Mask) -> Mask:
    """Return what lies above or below all that was scanned: padding up to the top or down to the bottom."""
    below = np.logical_and.accumulate(padding, axis=0)
    above = np.logical_and.accumulate(padding[::-1], axis=0)[::-1]
    beyond: Mask = below | above
    return beyond


def grown(mask: Mask, steps: int) -> Mask:
    """Return the mask grown by a number of voxels along the axes (6 neighbors)."""
    for _ in range(steps):
        larger = mask.copy()
        larger[1:] |= mask[:-1]
        larger[:-1] |= mask[1:]
        larger[:, 1:] |= mask[:, :-1]
        larger[:, :-1] |= mask[:, 1:]
        larger[:, :, 1:] |= mask[:, :, :-1]
        larger[:, :, :-1] |= mask[:, :, 1:]
        mask = larger
    return mask


def best_enclosed(core: Mask, bone: Mask, unseen: Mask, reach: int, step_mm: float) -> Mask | None:
    """Return the large piece of tissue that bone surrounds best for its size, None where there is none."""
    pieces, count = ndimage.label(core, NEIGHBORS)
    if count == 0:
        return None
    sizes = np.bincount(pieces.ravel())[1:]
    best, best_score = None, 0.0
    fewest = max(SMALLEST_PIECE * int(sizes.max()), LEAST_ML * 1000 / step_mm**3)
    for number in np.flatnonzero(sizes >= fewest):
        piece: Mask = pieces == number + 1
        regrown = grown(piece, reach)
        around = grown(regrown, 2) & ~regrown & ~unseen
        share = int(np.count_nonzero(around & bone)) / max(int(np.count_nonzero(around)), 1)
        score = share**2 * int(sizes[number])
        if share >= LEAST_BONE_SHARE and score > best_score:
            best, best_score = piece, score
    return best


def air_against(piece: Mask, air: Mask, step_mm: float) -> Mask:
    """Return the pockets of air that lie against the brain over a wide area with no bone between; not the outside."""
    contact = grown(piece, 1) & air
    if np.count_nonzero(contact) * step_mm**2 < AIR_CONTACT_MM2:
        return np.zeros_like(piece)
    pockets, _ = ndimage.label(air, NEIGHBORS)
    wide = np.bincount(pockets[contact]) * step_mm**2 >= AIR_CONTACT_MM2
    for axis in range(3):
        wide[[n for n in np.unique(pockets.take([0, -1], axis)) if n < wide.size]] = False
    within: Mask = np.isin(pockets, np.flatnonzero(wide))
    return within
