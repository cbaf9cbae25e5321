"""A first look at a scan's pixels: a few slices, spread over the stack, and the rules that judge them.

Indexing reads no more than these, and so stays quick; preprocessing, which reads everything, asks the same again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmct.data.geometry import SliceStack, Vectors, stack_from_affine
from fmct.data.nifti import open_nifti, read_voxels
from fmct.data.plausibility import implausible_hu
from fmct.data.recognition import not_a_head
from fmct.data.rejection import RejectCode
from fmct.data.scan import Scan, stack_from_slices

LOOK_MM = 12.0
FEWEST_LOOKS, MOST_LOOKS = 8, 24


def look_at_stack(scan: Scan) -> SliceStack:
    """Read some slices of a scan, at their true places; of a compressed NIfTI file, all have to be unpacked.

    Raises:
        ScanError: naming the file, when one of them can't be read or has values that aren't finite.
    """
    if not scan.slices:
        return look_at_nifti(scan.path)
    positions = np.array([header.position_lps_mm for header in scan.slices])
    across, down = np.reshape(scan.slices[0].orientation_lps, (2, 3))
    along = positions @ np.cross(across, down)
    return stack_from_slices([scan.slices[k] for k in spread_slices(along)])


def look_at_nifti(path: Path) -> SliceStack:
    """Read some slices of a NIfTI file, evenly apart along the axis closest to the body's.

    Raises:
        ScanError: when they can't be read or have values that aren't finite.
    """
    file = open_nifti(path)
    affine = file.affine.copy()
    steps = affine[:3, :3]
    axis = int((np.abs(steps[2]) / np.linalg.norm(steps, axis=0)).argmax())
    count = file.shape[axis]
    looks = number_of_looks(count * float(np.linalg.norm(steps[:, axis])))
    apart = min(round(count / looks), count // FEWEST_LOOKS)
    first = (count - 1) % apart // 2
    chosen = [slice(None)] * 3
    chosen[axis] = slice(first, None, apart)
    affine[:3, 3] += steps[:, axis] * first
    affine[:3, axis] *= apart
    return stack_from_affine(read_voxels(file, tuple(chosen)), affine)


def looked_at(stack: SliceStack) -> SliceStack:
    """Return the slices of a stack that a first look would take."""
    chosen = spread_slices(stack.positions_mm)
    return SliceStack(stack.hu[chosen], stack.origins_ras_mm[chosen], stack.row_step_ras_mm, stack.column_step_ras_mm)


def spread_slices(positions_mm: Vectors) -> NDArray[np.intp]:
    """Return which slices lie closest to the middles of as many equal parts of the stack as looks are due.

    Args:
        positions_mm: (K,) along the normal, in order.
    """
    first, last = positions_mm[0], positions_mm[-1]
    looks = number_of_looks(abs(last - first))
    middles = first + (last - first) * (np.arange(looks) + 0.5) / looks
    return np.unique(np.abs(positions_mm - middles[:, None]).round(3).argmin(axis=1))  # ties the same in any frame


def number_of_looks(length_mm: float) -> int:
    """Return how many slices to look at in a stack of some length."""
    return int(np.clip(round(length_mm / LOOK_MM), FEWEST_LOOKS, MOST_LOOKS))


def no_hu(stack: SliceStack) -> str | None:
    """Say why the values of a stack can't be HU, or None where they can."""
    return implausible_hu(stack.hu)


PIXEL_RULES: tuple[tuple[RejectCode, Callable[[SliceStack], str | None]], ...] = (
    (RejectCode.IMPLAUSIBLE_HU, no_hu),
    (RejectCode.NOT_A_HEAD, not_a_head),
)
