"""Copies of slices: the same image twice in a series, from folders copied together or sent again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fmct.data.dicom import SliceHeader, read_slice_hu
from fmct.data.rejection import ScanError
from fmct.data.series_rules import SAME_POSITION_MM, positions_mm

Damaged = list[tuple[SliceHeader, ScanError]]


def without_copies(stack: Sequence[SliceHeader]) -> tuple[list[SliceHeader], Damaged]:
    """Leave out copies.

    The same image: at the same position and with the same pixels; an equal SOPInstanceUID is no proof, for some
    archives have made them anew. Pixels are read only where positions coincide, and no more once two of them differ:
    such a stack is ambiguous anyway.

    Returns:
        The slices in order along the normal, only the first of those that are the same image twice; and those that
        can't be decoded while another one at their place can, as after a transfer that broke off and was repeated.
    """
    kept: list[SliceHeader] = []
    damaged: Damaged = []
    ambiguous = False
    positions = positions_mm(stack)
    last = -np.inf
    for index in np.argsort(positions, kind="stable"):
        header, position = stack[index], float(positions[index])
        if position - last >= SAME_POSITION_MM:
            kept.append(header)
            last = position
        elif ambiguous or not same_place(kept[-1], header):
            kept.append(header)
            ambiguous = True
        else:
            one, other = pixels(kept[-1]), pixels(header)
            if isinstance(other, ScanError):
                damaged.append((header, other))
            elif isinstance(one, ScanError):
                damaged.append((kept[-1], one))
                kept[-1] = header
            elif not np.array_equal(one, other):
                kept.append(header)
                ambiguous = True
    return kept, damaged


def same_place(one: SliceHeader, other: SliceHeader) -> bool:
    """Tell whether two slices, at one position along the normal, aren't shifted against each other within the plane."""
    return bool(np.abs(np.subtract(one.position_lps_mm, other.position_lps_mm)).max() <= SAME_POSITION_MM)


def pixels(header: SliceHeader) -> NDArray[np.int16] | ScanError:
    """Return a slice's pixels, or why they can't be decoded."""
    try:
        return read_slice_hu(header)
    except ScanError as error:
        return error
