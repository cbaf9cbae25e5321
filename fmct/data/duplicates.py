"""Copies of slices: the same image twice in a series, from folders copied together or sent again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fmct.data.dicom import SliceHeader, read_hu
from fmct.data.rejection import ScanError
from fmct.data.series_rules import SAME_POSITION_MM, positions_mm


def without_copies(stack: Sequence[SliceHeader]) -> list[SliceHeader]:
    """Return the slices in order along the normal, only the first of those that are the same image twice.

    The same image: at the same position and with the same pixels; an equal SOPInstanceUID is no proof, for some
    archives have made them anew. Pixels are read only where positions coincide, and no more once two of them differ:
    such a stack is ambiguous anyway.
    """
    kept: list[SliceHeader] = []
    ambiguous = False
    positions = positions_mm(stack)
    order = np.argsort(positions, kind="stable")
    last = -np.inf
    for index in order:
        header, position = stack[index], float(positions[index])
        if position - last > SAME_POSITION_MM:
            kept.append(header)
            last = position
        elif ambiguous or not same_image(kept[-1], header):
            kept.append(header)
            ambiguous = True
    return kept


def same_image(one: SliceHeader, other: SliceHeader) -> bool:
    """Tell whether two files at one position along the normal hold the same image at the very same place."""
    if np.abs(np.subtract(one.position_lps_mm, other.position_lps_mm)).max() > SAME_POSITION_MM:
        return False
    try:
        return bool(np.array_equal(read_hu(one.path), read_hu(other.path)))
    except ScanError:
        return False
