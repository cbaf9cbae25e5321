"""Whether values are Hounsfield units at all: pictures, raw scanner values and wrong rescaling must not pass as CT.

Every head CT shows air (around the head, in the sinuses) and water-like tissue. Those two anchor the scale, so both
must be there. Checked on what was measured: padding doesn't count, and clamping comes later.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fmct.data.geometry import PADDING_HU

AIR_HU_RANGE = (-1100, -850)
TISSUE_HU_RANGE = (-150, 250)
LEAST_AIR = 0.001
LEAST_TISSUE = 0.005
SAMPLE_STEP = 2


def implausible_hu(hu: NDArray[np.int16]) -> str | None:
    """Say why values can't be HU, or None where they can.

    Args:
        hu: (K, J, I) as measured, `PADDING_HU` where nothing was. Every other row and column is looked at.
    """
    sample = hu[:, ::SAMPLE_STEP, ::SAMPLE_STEP]
    measured = sample[sample != PADDING_HU]
    if measured.size == 0:
        return "nothing but padding"
    low, high = int(measured.min()), int(measured.max())
    if low == high:
        return f"all values are {low}"
    air, tissue = share_between(measured, AIR_HU_RANGE), share_between(measured, TISSUE_HU_RANGE)
    found = f"values run from {low} to {high}"
    if air < LEAST_AIR:
        return f"no air: {100 * air:.3f} % between {AIR_HU_RANGE[0]} and {AIR_HU_RANGE[1]}; {found}"
    if tissue < LEAST_TISSUE:
        return f"no tissue: {100 * tissue:.3f} % between {TISSUE_HU_RANGE[0]} and {TISSUE_HU_RANGE[1]}; {found}"
    return None


def share_between(values: NDArray[np.int16], ends: tuple[int, int]) -> float:
    """Return the share of values within a range, ends included."""
    return float(np.count_nonzero((values >= ends[0]) & (values <= ends[1]))) / values.size
