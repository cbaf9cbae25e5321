"""From a scan's slices to the volume that the cache keeps: checked, resampled once, cropped on the head."""

from __future__ import annotations

import numpy as np

from fmct.data.defacing import deface
from fmct.data.geometry import SliceStack, Vectors
from fmct.data.grid import Grid
from fmct.data.head import SMALLEST_HEAD_ML, Head, find_head
from fmct.data.look import looked_at
from fmct.data.plausibility import implausible_hu
from fmct.data.presets import IsotropicSettings as IsotropicSettings
from fmct.data.recognition import enclosed_brain, too_little
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.resampling import resample
from fmct.data.volumes import Volume

BRAIN_TO_TOP_MM = 100.0
"""From the middle of the brain to above the vertex of the largest head."""


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
    problem = None if RejectCode.IMPLAUSIBLE_HU in skip else implausible_hu(stack.hu)
    if problem:
        raise ScanError(RejectCode.IMPLAUSIBLE_HU, name, problem)
    brain = enclosed_brain(looked_at(stack))
    problem = too_little(brain)
    if problem and RejectCode.NOT_A_HEAD not in skip:
        raise ScanError(RejectCode.NOT_A_HEAD, name, problem)
    hu_range = (settings.hu_min, settings.hu_max)
    if not settings.head_crop:
        grid = Grid.covering(*stack.bounds_ras_mm(), settings.spacing_mm)
        hu = resample(stack, grid, hu_range=hu_range)
        deface(hu, settings, name)
        return Volume(hu, grid.affine_ras)
    head = head_around(None if problem else brain.center_ras_mm, stack, settings, name)
    if settings.shape_voxels is not None:
        n = settings.shape_voxels
        grid = Grid.centered(head.center_ras_mm(n * settings.spacing_mm), settings.spacing_mm, (n, n, n))
    else:
        margin = settings.head_margin_mm
        grid = Grid.covering(head.low_ras_mm - margin, head.high_ras_mm + margin, settings.spacing_mm)
    hu = resample(stack, grid, hu_range=hu_range)
    hu[~head.mask_on(grid)] = settings.hu_min
    deface(hu, settings, name)
    return Volume(np.ascontiguousarray(hu), grid.affine_ras, cropped_mm=round(head.beyond_mm(grid), 1))


def head_around(center_ras_mm: Vectors | None, stack: SliceStack, settings: IsotropicSettings, name: str) -> Head:
    """Find what to crop on; where it turns out not to hold the brain, once more without what lies above the brain.

    Arms that are held up are the reason: hands aren't the vertex.

    Args:
        center_ras_mm: (3,) of the brain; None where it isn't known, and any large piece of tissue will do.
        stack: the scan.
        settings: how much to keep.
        name: how errors call the scan.

    Raises:
        ScanError: NOT_A_HEAD when there is no such thing.
    """
    parts = [stack] if center_ras_mm is None else [stack, below(stack, center_ras_mm[2] + BRAIN_TO_TOP_MM)]
    for part in parts:
        head = find_head(part, settings.head_height_mm, settings.head_margin_mm)
        if head is not None and (center_ras_mm is None or head.holds(center_ras_mm)):
            return head
    found = f"no piece of tissue of {SMALLEST_HEAD_ML:.0f} mL" + ("" if center_ras_mm is None else " around the brain")
    raise ScanError(RejectCode.NOT_A_HEAD, name, f"{found} to crop on; --no-head-crop keeps the whole scan")


def below(stack: SliceStack, top_mm: float) -> SliceStack:
    """Return the slices that reach below a height; at least two."""
    _, rows, columns = stack.hu.shape
    falls = (stack.row_step_ras_mm[2] * (rows - 1), stack.column_step_ras_mm[2] * (columns - 1))
    lowest = stack.origins_ras_mm[:, 2] + sum(min(fall, 0.0) for fall in falls)
    kept = lowest < max(top_mm, float(np.sort(lowest)[1]) + 1e-3)
    return SliceStack(stack.hu[kept], stack.origins_ras_mm[kept], stack.row_step_ras_mm, stack.column_step_ras_mm)
