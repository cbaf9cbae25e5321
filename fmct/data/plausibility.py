"""Whether values are Hounsfield units at all: pictures, raw scanner values and wrong rescaling must not pass as CT.

Every head CT shows air (around the head, in the sinuses) near -1000 and more tissue near water than of any other kind.
Those two anchor the scale: a shift, a wrong slope or a turned sign moves one of them. Both are judged by a histogram of
what was measured: padding doesn't count, whether the file marks it or not, and clamping comes later.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fmct.data.geometry import PADDING_HU

AIR_HU_RANGE = (-1100, -850)
TISSUE_HU_RANGE = (-150, 150)
"""Fat to plastic; heads have their peak at 10 to 65, in a wrong scale it was found beyond -165 or 225."""
SOLID_HU = -600
"""Denser than lung, and than what noise makes of air."""
LEAST_AIR = 0.001
LEAST_BETWEEN = 0.0001
"""Fat, and pixels that are partly air: some lie between air and tissue in every picture that a scanner took."""
LEAST_TISSUE = 0.005
PEAK_HU = 21
CUT_BELOW_HU = 500
LEAST_CUT = 0.005
REMARKABLE = 0.3
SAMPLE_STEP = 3
MOST_SLICES = 16
LOWEST = -(1 << 15)

Counts = NDArray[np.int64]


def implausible_hu(hu: NDArray[np.int16]) -> str | None:
    """Say why values can't be HU, or None where they can.

    Args:
        hu: (K, J, I) as measured, `PADDING_HU` where nothing was. Every third row and column is looked at, and of many
            slices `MOST_SLICES`, evenly.
    """
    counts = without_padding(histogram(hu))
    values = np.flatnonzero(counts) + LOWEST
    if values.size == 0:
        return "nothing but padding"
    low, high, total = int(values[0]), int(values[-1]), int(counts.sum())
    if low == high:
        return f"all values are {low}"
    found = f"values run from {low} to {high}"
    air, tissue = (between(counts, *ends) / total for ends in (AIR_HU_RANGE, TISSUE_HU_RANGE))
    if air < LEAST_AIR:
        return (
            f"no air: {100 * air:.3f} % between {AIR_HU_RANGE[0]} and {AIR_HU_RANGE[1]}; {found}{most_common(counts)}"
        )
    if air - largest_between(counts, *AIR_HU_RANGE) / total < LEAST_AIR:
        gap = between(counts, AIR_HU_RANGE[1] + 1, TISSUE_HU_RANGE[0] - 1) / total
        if gap < LEAST_BETWEEN:
            return f"no air: what is near -1000 is of one value, and nothing lies between it and tissue; {found}"
    below = between(counts, LOWEST, AIR_HU_RANGE[0] - 1) / total
    if below > air:
        return f"air isn't near -1000: {100 * below:.0f} % lie below {AIR_HU_RANGE[0]}, {100 * air:.1f} % near; {found}"
    if tissue < LEAST_TISSUE:
        return f"no tissue: {100 * tissue:.3f} % between {TISSUE_HU_RANGE[0]} and {TISSUE_HU_RANGE[1]}; {found}"
    peak = peak_above(counts, SOLID_HU)
    if not TISSUE_HU_RANGE[0] <= peak <= TISSUE_HU_RANGE[1]:
        return f"tissue isn't near 0: most of what is solid lies at {peak}; {found}"
    cut = counts[high - LOWEST] / total
    if high < CUT_BELOW_HU and cut > LEAST_CUT:
        return f"cut off above, as for a display window: {100 * cut:.1f} % are exactly {high}; {found}"
    return None


def histogram(hu: NDArray[np.int16]) -> Counts:
    """Return how often each value (65536, from `LOWEST` up) occurs in a sample."""
    slices = np.unique(np.linspace(0, len(hu) - 1, MOST_SLICES).round().astype(int))
    sample = np.concatenate([hu[k, ::SAMPLE_STEP, ::SAMPLE_STEP].ravel() for k in slices])
    counts = np.bincount(sample.view(np.uint16), minlength=1 << 16)
    return np.roll(counts, -LOWEST)  # as unsigned numbers, negative ones come last


def without_padding(counts: Counts) -> Counts:
    """Return the histogram without padding: marked, or the lowest value where it stands apart below all air."""
    measured = counts.copy()
    measured[PADDING_HU - LOWEST] = 0
    values = np.flatnonzero(measured)
    if values.size > 1 and values[0] + LOWEST < AIR_HU_RANGE[0] and measured[values[0]] > measured[values[1] :].max():
        measured[values[0]] = 0
    return measured


def between(counts: Counts, low: int, high: int) -> int:
    """Return how many values lie within a range, ends included."""
    return int(counts[low - LOWEST : high + 1 - LOWEST].sum())


def largest_between(counts: Counts, low: int, high: int) -> int:
    """Return how often the most common value within a range, ends included, occurs."""
    return int(counts[low - LOWEST : high + 1 - LOWEST].max())


def peak_above(counts: Counts, low: int) -> int:
    """Return around which value, above some other, values are most common."""
    smooth = np.convolve(counts[low - LOWEST :], np.ones(PEAK_HU, np.int64), mode="same")
    return int(smooth.argmax()) + low


def most_common(counts: Counts) -> str:
    """Return a remark for messages where one value is very common: the background was set to it."""
    value, share = int(counts.argmax()) + LOWEST, counts.max() / counts.sum()
    return f"; {100 * share:.0f} % are exactly {value}" if share > REMARKABLE else ""
