"""The preset `fmhct`: from a scan to windows of 96 voxels a side, in numbers what the published networks were fed.

RAS, 1 mm by cubic splines, the box above 0 HU, windows, each axis averaged to 96 voxels by itself: proportions aren't
kept, and table and head rest stay in view. The chain is MONAI's, step by step; how each is computed here is in the
files named `fmhct_*`. Two things that it can't take are made good first: pixels outside of a DICOM scan's circle count
as air (splines would ring around -32768), and a stack that no affine describes (uneven gaps) is brought to an even grid
of 1 mm in true geometry, by linear interpolation. The affine is nibabel's, as everywhere here;
MONAI takes the qform where a header's pixdim contradicts its sform.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from fmct.data.fmhct_banded import Array
from fmct.data.fmhct_foreground import exact_values, foreground_box
from fmct.data.fmhct_grid import SPACING_MM, Floats, SpacingGrid
from fmct.data.fmhct_resampling import resample_splines
from fmct.data.fmhct_windows import windowed_averages
from fmct.data.geometry import PADDING_HU, SliceStack
from fmct.data.grid import Grid
from fmct.data.nifti import StoredStack
from fmct.data.presets import FmhctSettings
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.resampling import AIR_HU, resample
from fmct.data.volume_file import Volume
from fmct.data.volume_rules import checked_brain

UNEVEN_MM = 0.1
"""How far a slice may lie from where an affine puts it; headers round positions."""


def preprocess_fmhct(
    stack: SliceStack,
    settings: FmhctSettings,
    name: str = "the scan",
    skip: frozenset[RejectCode] = frozenset(),
) -> Volume:
    """Turn a scan into windows.

    Args:
        stack: the scan as measured.
        settings: which windows, and how many voxels.
        name: how errors call the scan.
        skip: rules that are switched off for this scan, of IMPLAUSIBLE_HU and NOT_A_HEAD.

    Returns:
        (C, Z, Y, X) float16 in [0, 1]; the affine's steps differ from axis to axis, and turn where the scan was turned.

    Raises:
        ScanError: IMPLAUSIBLE_HU when the values are no HU; NOT_A_HEAD when it shows none, or, even with that rule
            switched off, when nothing is above 0 HU.
    """
    checked_brain(stack, name, skip)
    found = fmhct_windows(*even_scan(stack), settings)
    if found is None:
        raise ScanError(RejectCode.NOT_A_HEAD, name, "nothing in it is above 0 HU")
    windows_xyz, affine = found
    return Volume(np.ascontiguousarray(windows_xyz.transpose(0, 3, 2, 1), np.float16), affine)


def even_scan(stack: SliceStack) -> tuple[NDArray[Any], Floats]:
    """Return a stack as an image: values (X, Y, Z) in any memory order, and the affine to RAS millimeters."""
    origins = stack.origins_ras_mm
    step = (origins[-1] - origins[0]) / (len(origins) - 1)
    if np.abs(origins[0] + np.arange(len(origins))[:, None] * step - origins).max() > UNEVEN_MM:
        grid = Grid.covering(*stack.bounds_ras_mm(), SPACING_MM)
        return resample(stack, grid).transpose(2, 1, 0), grid.affine_ras
    affine = np.eye(4)
    affine[:3] = np.stack([stack.column_step_ras_mm, stack.row_step_ras_mm, step, origins[0]], axis=1)
    if isinstance(stack, StoredStack):
        values: NDArray[Any] = stack.unrounded()
    else:
        padded = stack.hu.min() == PADDING_HU
        values = np.where(stack.hu == PADDING_HU, np.int16(AIR_HU), stack.hu) if padded else stack.hu
    return values.transpose(2, 1, 0), affine


def fmhct_windows(values: NDArray[Any], affine_ras: Floats, settings: FmhctSettings) -> tuple[Array, Floats] | None:
    """Do what the published chain does, up to its cast to float16.

    Args:
        values: (X, Y, Z) in HU, any type and memory order.
        affine_ras: (4, 4) from its indices to RAS millimeters.
        settings: which windows, and how many voxels.

    Returns:
        (C, X, Y, Z) float32 in [0, 1], axes to R, A and S, and the affine; None where nothing is above 0 HU.
    """
    to_ras = io_orientation(affine_ras)
    affine_ras = affine_ras @ inv_ornt_aff(to_ras, values.shape)
    values = apply_orientation(values, to_ras)
    grid = SpacingGrid.of(values.shape, affine_ras)
    hu = resample_splines(values, grid)
    box = foreground_box(hu, exact_values(values, grid))
    if box is None:
        return None
    cropped = hu[box]
    size = settings.shape_voxels
    voxels = np.array(cropped.shape) / size
    crop = np.eye(4)
    crop[:3, :3] = np.diag(voxels)
    crop[:3, 3] = np.array([side.start for side in box]) + (voxels - 1) / 2
    return windowed_averages(cropped, settings.windows_hu, size), grid.affine_ras @ crop
