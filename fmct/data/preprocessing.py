"""From a scan's slices to the volume that the cache keeps: checked, resampled once, cropped on the head."""

from __future__ import annotations

import numpy as np

from fmct.data.geometry import SliceStack
from fmct.data.grid import Grid
from fmct.data.head import find_head
from fmct.data.plausibility import implausible_hu
from fmct.data.presets import IsotropicSettings as IsotropicSettings
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.resampling import resample
from fmct.data.volumes import Volume


def preprocess_stack(stack: SliceStack, settings: IsotropicSettings, name: str = "the scan") -> Volume:
    """Turn a scan into a volume.

    Args:
        stack: the scan as measured.
        settings: what to make of it.
        name: how errors call the scan.

    Returns:
        int16 HU between `hu_min` and `hu_max`, on an axis-aligned grid whose indices grow to R, A and S. With
        `head_crop` what isn't head is `hu_min`, and so is what lies outside the scan; where the head is larger than
        the volume, `cropped_mm` says by how much.

    Raises:
        ScanError: IMPLAUSIBLE_HU when the values are no HU, NOT_A_HEAD when there is nothing to crop on.
    """
    problem = implausible_hu(stack.hu)
    if problem:
        raise ScanError(RejectCode.IMPLAUSIBLE_HU, name, problem)
    hu_range = (settings.hu_min, settings.hu_max)
    if not settings.head_crop:
        grid = Grid.covering(*stack.bounds_ras_mm(), settings.spacing_mm)
        return Volume(resample(stack, grid, hu_range=hu_range), grid.affine_ras)
    head = find_head(stack, settings.head_height_mm, settings.head_margin_mm)
    if head is None:
        raise ScanError(RejectCode.NOT_A_HEAD, name, "no piece of tissue is as large as a head")
    if settings.shape_voxels is not None:
        n = settings.shape_voxels
        grid = Grid.centered(head.center_ras_mm(n * settings.spacing_mm), settings.spacing_mm, (n, n, n))
    else:
        margin = settings.head_margin_mm
        grid = Grid.covering(head.low_ras_mm - margin, head.high_ras_mm + margin, settings.spacing_mm)
    hu = resample(stack, grid, hu_range=hu_range)
    hu[~head.mask_on(grid)] = settings.hu_min
    return Volume(np.ascontiguousarray(hu), grid.affine_ras, cropped_mm=round(head.beyond_mm(grid), 1))
