"""From a scan's slices to the volume that the cache keeps: checked, cropped on the head, resampled once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fmct.data.defacing import deface
from fmct.data.geometry import SliceStack
from fmct.data.grid import Grid
from fmct.data.head import SMALLEST_HEAD_ML, Head, find_head
from fmct.data.presets import IsotropicSettings as IsotropicSettings
from fmct.data.recognition import EnclosedBrain, too_little
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.resampling import resample
from fmct.data.volume_rules import checked_brain
from fmct.data.volumes import Volume

TELLING_BRAIN_ML = 60.0
"""With the rule on heads switched off, so much brain in a skull still says where the head is."""


def preprocess_stack(
    stack: SliceStack,
    settings: IsotropicSettings,
    name: str = "the scan",
    skip: frozenset[RejectCode] = frozenset(),
) -> Volume:
    """Turn a scan into a volume.

    Args:
        stack: the scan as measured.
        settings: what to make of it.
        name: how errors call the scan.
        skip: rules that are switched off for this scan, of IMPLAUSIBLE_HU and NOT_A_HEAD.

    Returns:
        int16 HU between `hu_min` and `hu_max`, on an axis-aligned grid whose indices grow to R, A and S. With
        `head_crop` what isn't head is `hu_min`, and so is what lies outside the scan; where the head is larger than
        the volume, `cropped_mm` says by how much. With `deface` no face is left.

    Raises:
        ScanError: IMPLAUSIBLE_HU when the values are no HU; NOT_A_HEAD when it shows none, or, even with that rule
            switched off, when there is nothing to crop on; NOT_DEFACED when the face can't be located.
    """
    brain = checked_brain(stack, name, skip)
    if not settings.head_crop:
        grid = Grid.covering(*stack.bounds_ras_mm(), settings.spacing_mm)
        hu = resample(stack, grid, hu_range=(settings.hu_min, settings.hu_max))
        deface(hu, settings, name)
        return Volume(hu, grid.affine_ras)
    head = head_in(stack, brain, too_little(brain) is not None, settings, name)
    if settings.shape_voxels is not None:
        n = settings.shape_voxels
        grid = Grid.centered(head.center_ras_mm(n * settings.spacing_mm), settings.spacing_mm, (n, n, n))
    else:
        margin = settings.head_margin_mm
        grid = Grid.covering(head.low_ras_mm - margin, head.high_ras_mm + margin, settings.spacing_mm)
    hu = cropped(stack, head, grid, settings)
    deface(hu, settings, name)
    return Volume(hu, grid.affine_ras, cropped_mm=round(head.beyond_mm(grid), 1))


def head_in(stack: SliceStack, brain: EnclosedBrain, doubtful: bool, settings: IsotropicSettings, name: str) -> Head:
    """Find what to crop on: the head around the brain, or the largest body where it needn't be a head.

    Args:
        stack: the scan.
        brain: what was found of one.
        doubtful: whether it isn't enough for a head, but is to be taken for one all the same.
        settings: how much to keep.
        name: how errors call the scan.

    Raises:
        ScanError: NOT_A_HEAD when there is no such thing.
    """
    around: list[EnclosedBrain | None] = [brain] if brain.volume_ml >= (TELLING_BRAIN_ML if doubtful else 0) else []
    for known in [*around, None] if doubtful else around:
        head = find_head(stack, known, settings.head_height_mm, settings.head_margin_mm)
        if head is not None:
            return head
    found = f"no piece of tissue of {SMALLEST_HEAD_ML:.0f} mL" + ("" if doubtful else " around the brain")
    raise ScanError(RejectCode.NOT_A_HEAD, name, f"{found} to crop on; --no-head-crop keeps the whole scan")


def cropped(stack: SliceStack, head: Head, grid: Grid, settings: IsotropicSettings) -> NDArray[np.int16]:
    """Return the head on a grid (Z, Y, X), all else `hu_min`; nothing is computed where there is no head."""
    hu = np.full(grid.shape_zyx, settings.hu_min, np.int16)
    margin = settings.head_margin_mm + grid.spacing_mm
    low, high = (
        np.clip(np.rint(grid.indices_xyz(edge)).astype(int), 0, grid.shape_zyx[::-1])
        for edge in (head.low_ras_mm - margin, head.high_ras_mm + margin + grid.spacing_mm)
    )
    box = tuple(slice(int(low[axis]), int(high[axis])) for axis in (2, 1, 0))
    shape = (box[0].stop - box[0].start, box[1].stop - box[1].start, box[2].stop - box[2].start)
    part = Grid(grid.first_ras_mm + grid.spacing_mm * low, grid.spacing_mm, shape)
    voxels = head.on(part)
    resampled = resample(stack, part, hu_range=(settings.hu_min, settings.hu_max), rows=voxels.rows)
    kept = voxels.kept(resampled, settings.head_margin_mm)
    np.copyto(hu[box], resampled, where=kept.unpacked())
    return hu
