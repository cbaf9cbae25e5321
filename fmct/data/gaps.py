"""Missing slices: holes in a stack, told from a change of slice thickness.

Distances between slices may differ for good reasons: a thinner base than vertex, a gantry that was tilted between two
blocks. A hole is a short run of gaps that are about a multiple of the equal gaps on both its sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fmct.data.geometry import Vectors

SAME_GAP = 0.1
"""Gaps within 10 % count as equal."""
ROUNDING_MM = 0.1
"""Some archives round positions to tenths of a millimeter, so a gap may be off by as much: 0.625 mm is 0.6 or 0.7."""
LONGEST_RUN = 3
"""More wide gaps in a row are a thicker block, not slices lost one by one."""
LEAST_RATIO = 1.75
OFF_MULTIPLE = 0.25
OFF_MULTIPLE_SHARE = 0.04
"""How far a hole may be from a multiple: a quarter of a gap, and 4 % of it, for gaps are rounded."""


@dataclass(frozen=True)
class Hole:
    """Slices that are missing.

    Attributes:
        after: index of the last slice below the hole.
        gap_mm: distance of the slices around it.
        usual_mm: distance of the slices beside it.
    """

    after: int
    gap_mm: float
    usual_mm: float

    @property
    def missing(self) -> int:
        """How many slices there should be."""
        return max(round(self.gap_mm / self.usual_mm), 2) - 1


def holes_in(positions_mm: Vectors) -> list[Hole]:
    """Find missing slices.

    Args:
        positions_mm: (K,) increasing positions along the normal.
    """
    gaps = np.diff(positions_mm)
    holes: dict[int, Hole] = {}
    for start in range(1, len(gaps) - 1):
        below = float(gaps[start - 1])
        for end in range(start + 1, min(start + LONGEST_RUN, len(gaps) - 1) + 1):
            above = float(gaps[end])
            wide = gaps[start:end]
            if wide.min() < LEAST_RATIO * (below - ROUNDING_MM) - ROUNDING_MM:
                break
            if abs(below - above) <= max(SAME_GAP * min(below, above), 1.01 * ROUNDING_MM):
                usual = (below + above) / 2
                found = (Hole(start + k, float(gap), usual) for k, gap in enumerate(wide) if is_multiple(gap, usual))
                holes.update({hole.after: hole for hole in found})
    return [holes[after] for after in sorted(holes)]


def is_multiple(gap_mm: float, usual_mm: float) -> bool:
    """Tell whether a gap is about 2, 3, 4 ... times another."""
    ratio, uncertain = gap_mm / usual_mm, ROUNDING_MM / usual_mm
    off = abs(ratio - max(round(ratio), 2))
    return ratio >= LEAST_RATIO - uncertain and off <= OFF_MULTIPLE + OFF_MULTIPLE_SHARE * ratio + uncertain
