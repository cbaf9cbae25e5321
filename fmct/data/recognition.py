"""Whether a scan shows a head: brain enclosed by a skull, and not too much body below it.

Looked for in single slices of about 3 mm pixels, so that a few slices are enough and any direction of them will do. In
each, pieces of tissue with the HU of brain count as brain where

- they are large (`LEAST_AREA_CM2`), but not longer than a brain,
- bone surrounds them: nearly all of their outline, or more than half of it in one piece of bone. So a skull counts
  that was opened by a surgeon or hasn't closed yet, but ribs and vertebrae, which are many small pieces, don't; and
- they make up much of the body there (`LEAST_BODY_SHARE`): bone marrow in a thigh, the bladder in the pelvis and the
  tongue in the jaw don't.

What counts, summed over the slices, is a volume and a height.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmct.data.coarse_slices import coarse_slices
from fmct.data.geometry import SliceStack, Vectors

Mask = NDArray[np.bool_]

PIXEL_MM = 3.0
BRAIN_HU = (-20, 100)
"""Fluid to fresh blood and enhanced tumor, with 20 HU of slack for calibration."""
BONE_HU = 160
"""Low, for a newborn's skull is thin, and half of a coarse pixel isn't bone."""
BODY_HU = -300
THINNING_MM = 6.0
"""Opening by this takes scalp, muscles and the spinal canal off the brain, and thin equipment off the body."""
REACH_MM = 4.5
"""How far from the outline the bone may begin."""
LEAST_AREA_CM2 = 25.0
LONGEST_MM = 230.0
LEAST_BONE_SHARE, LEAST_ONE_BONE_SHARE = 0.8, 0.55
"""A closed skull has 0.94 to 1, one without half its vault 0.6 to 0.75 in one piece; a jaw with vertebra up to 0.52."""
LEAST_BODY_SHARE = 0.3
"""Brain above the skull base makes up 0.4 to 0.75 of a section; bladder, marrow or tongue up to 0.24."""
LEAST_BRAIN_ML = 200.0
LEAST_BRAIN_MM = 35.0
"""Heads of newborns' size show 45 mm and more; necks, faces and temporal bones up to 28."""
LEAST_HEIGHT_SHARE = 0.15
"""A head with neck and chest has 0.2, a body down to the hips 0.1."""
ADVICE = "if it belongs here all the same, index it with --skip-rules NOT_A_HEAD"
IN_PLANE = np.zeros((3, 3, 3), bool)
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True, eq=False)
class EnclosedBrain:
    """What of a scan is brain in a skull.

    Attributes:
        volume_ml: its volume, as far as slices show that count.
        height_mm: its extent along the body, in the same slices.
        scan_mm: the scan's extent along the body.
        center_ras_mm: (3,) its center; None where there is none.
        pieces_ras_mm: (N, 3) the middles of the pieces within slices that it was found as.
        low_ras_mm: (3,) lowest coordinates of those pieces; None where there are none.
        high_ras_mm: (3,) highest ones.
    """

    volume_ml: float
    height_mm: float
    scan_mm: float
    center_ras_mm: Vectors | None
    pieces_ras_mm: Vectors
    low_ras_mm: Vectors | None
    high_ras_mm: Vectors | None

    @property
    def height_share(self) -> float:
        """How much of the scan's extent along the body shows brain."""
        return self.height_mm / self.scan_mm


def not_a_head(stack: SliceStack) -> str | None:
    """Say why a scan can't be one of a head, or None for a head.

    Args:
        stack: the scan, or some of its slices.
    """
    return too_little(enclosed_brain(stack))


def too_little(brain: EnclosedBrain) -> str | None:
    """Say why a scan that shows this much brain can't be one of a head, or None for a head."""
    if brain.volume_ml < LEAST_BRAIN_ML or brain.height_mm < LEAST_BRAIN_MM:
        found = f"{brain.volume_ml:.0f} mL of brain in a skull over {brain.height_mm:.0f} mm"
        return f"{found}, at least {LEAST_BRAIN_ML:.0f} mL over {LEAST_BRAIN_MM:.0f} mm needed; {ADVICE}"
    if brain.height_share < LEAST_HEIGHT_SHARE:
        found = f"mostly body: {brain.height_mm:.0f} of {brain.scan_mm:.0f} mm show brain"
        return f"{found} ({100 * brain.height_share:.0f} %), at least {100 * LEAST_HEIGHT_SHARE:.0f} % needed; {ADVICE}"
    return None


def enclosed_brain(stack: SliceStack) -> EnclosedBrain:
    """Measure the brain that is enclosed by a skull.

    Args:
        stack: the scan, or some of its slices; each stands for what lies around it, up to halfway to the next.
    """
    coarse = coarse_slices(stack, PIXEL_MM)
    row_mm, column_mm = coarse.pixel_mm
    _, rows, columns = coarse.hu.shape
    extents_mm = (slice_extents_mm(stack), np.full(rows, row_mm), np.full(columns, column_mm))
    up = axis_along_body(stack)
    shows_brain = np.zeros(coarse.hu.shape[up], bool)
    volumes_mm3: list[float] = []
    found: list[Vectors] = []
    for box, pixels in brain_pieces(coarse.hu, row_mm, column_mm, up):
        shows_brain[box[up]] = True
        volumes_mm3.append(pixels * row_mm * column_mm * float(extents_mm[0][box[0].start]))
        ends = np.array([[(side.start, side.stop - 1)[end] for side in box[1:]] for end in (0, 1)])
        found.append(coarse.origins_ras_mm[box[0].start] + ends @ [coarse.row_step_ras_mm, coarse.column_step_ras_mm])
    corners = np.array(found).reshape(-1, 2, 3)
    middles = corners.mean(axis=1)
    return EnclosedBrain(
        volume_ml=sum(volumes_mm3) / 1000,
        height_mm=float(extents_mm[up][shows_brain].sum()),
        scan_mm=float(extents_mm[up].sum()),
        center_ras_mm=np.average(middles, axis=0, weights=volumes_mm3) if volumes_mm3 else None,
        pieces_ras_mm=middles,
        low_ras_mm=corners.min(axis=(0, 1)) if volumes_mm3 else None,
        high_ras_mm=corners.max(axis=(0, 1)) if volumes_mm3 else None,
    )


def brain_pieces(
    hu: NDArray[np.int16], row_mm: float, column_mm: float, up: int
) -> Iterator[tuple[tuple[slice, ...], int]]:
    """Yield the pieces of tissue within slices that count as brain: their box, and how many pixels they have.

    Args:
        hu: (K, J, I) slices in coarse pixels.
        row_mm: distance of neighboring rows.
        column_mm: distance of neighboring columns.
        up: the axis that runs along the body.
    """
    pixel_mm = float(np.sqrt(row_mm * column_mm))
    thinning, reach = (max(round(length / pixel_mm), 1) for length in (THINNING_MM, REACH_MM))
    pieces, _ = ndimage.label(opened((hu >= BRAIN_HU[0]) & (hu <= BRAIN_HU[1]), thinning), IN_PLANE)
    fewest = LEAST_AREA_CM2 * 100 / (row_mm * column_mm)
    sizes = np.bincount(pieces.ravel())
    boxes = dict(enumerate(ndimage.find_objects(pieces), start=1))
    large = [number for number, box in boxes.items() if sizes[number] >= fewest and fits(box, row_mm, column_mm)]

    def slice_of(number: int) -> int:
        return int(boxes[number][0].start)

    for k, numbers in groupby(sorted(large, key=slice_of), key=slice_of):
        bones, _ = ndimage.label(grown(hu[k] > BONE_HU, reach))
        body = opened(hu[k] > BODY_HU, thinning)
        for number in numbers:
            box = boxes[number][1:]
            inside = filled(np.pad(pieces[k][box] == number, 1))
            pixels = int(np.count_nonzero(inside))
            beside = tuple(box[axis] if axis == up - 1 else slice(None) for axis in range(2))
            if pixels >= LEAST_BODY_SHARE * np.count_nonzero(body[beside]) and in_skull(inside, framed(bones, box)):
                yield boxes[number], pixels


def fits(box: tuple[slice, ...], row_mm: float, column_mm: float) -> bool:
    """Tell whether a piece in a box of pixels is no longer than a brain."""
    _, rows, columns = (side.stop - side.start for side in box)
    return bool(max(rows * row_mm, columns * column_mm) <= LONGEST_MM)


def slice_extents_mm(stack: SliceStack) -> Vectors:
    """Return what each slice (K,) stands for along the normal: halfway to both neighbors, as far beyond the ends."""
    gaps: Vectors = stack.gaps_mm
    ends = np.concatenate([gaps[:1], gaps, gaps[-1:]]) / 2
    extents: Vectors = ends[:-1] + ends[1:]
    return extents


def axis_along_body(stack: SliceStack) -> int:
    """Return which axis runs closest to the body's: of slices (0, in axial stacks), rows (1) or columns (2)."""
    row_mm, column_mm = stack.pixel_mm
    directions = (stack.normal_ras, stack.row_step_ras_mm / row_mm, stack.column_step_ras_mm / column_mm)
    return int(np.argmax([abs(direction[2]) for direction in directions]))


def opened(mask: Mask, pixels: int) -> Mask:
    """Return the mask (..., J, I) without what is thin within a slice."""
    return grown(~grown(~mask, pixels), pixels)


def grown(mask: Mask, pixels: int) -> Mask:
    """Return the mask (..., J, I) grown within each slice, up, down and sideways by one pixel each time."""
    for _ in range(pixels):
        larger = mask.copy()
        larger[..., 1:, :] |= mask[..., :-1, :]
        larger[..., :-1, :] |= mask[..., 1:, :]
        larger[..., 1:] |= mask[..., :-1]
        larger[..., :-1] |= mask[..., 1:]
        mask = larger
    return mask


def filled(mask: Mask) -> Mask:
    """Return the mask (J, I), which doesn't touch the corner, with its holes: all that isn't connected with there."""
    around, _ = ndimage.label(~mask)
    found: Mask = around != around[0, 0]
    return found


def framed(labels: NDArray[Any], box: tuple[slice, ...]) -> NDArray[Any]:
    """Return the labels (J, I) in a box and one pixel around it; 0 beyond the slice."""
    row, column = box
    return np.pad(labels, 1)[row.start : row.stop + 2, column.start : column.stop + 2]


def in_skull(inside: Mask, bones: NDArray[Any]) -> bool:
    """Tell whether bone surrounds a piece of tissue in a slice.

    Args:
        inside: (J, I) the piece, with a frame that isn't part of it.
        bones: (J, I) 0, or the number of the piece of bone in reach.
    """
    outline = grown(inside, 1) & ~inside
    of_bone = np.bincount(bones[outline])
    total = int(of_bone.sum())
    largest = int(of_bone[1:].max(initial=0))
    return total - int(of_bone[0]) >= LEAST_BONE_SHARE * total or largest >= LEAST_ONE_BONE_SHARE * total
