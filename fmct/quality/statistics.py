"""What is measured of one preprocessed volume: HU of air, brain and bone, noise, the head's size, place and symmetry.

Made to keep up with reading: HU come from one histogram with a bin per HU, sizes from counts and projections. Values
are NaN where a volume has too little of what they are about; nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Hu = NDArray[np.int16]
Counts = NDArray[np.int64]

LOWEST_HU = -1024
TISSUE_HU = -300
AIR_BELOW_HU = -850
BRAIN_HU = (0, 80)
BRAIN_PEAK_HU = 10
SMOOTHED_HU = 2
BONE_ABOVE_HU = 300
METAL_FROM_HU = 2800
LEAST_ML = {"air": 10.0, "brain": 50.0, "bone": 5.0, "head": 50.0}
LEAST_PLANE_CM2 = 1.0
NOISE_PLANE_STEP = 4
MIRROR_STEP_MM = 6.0


def measure(hu: Hu, spacing_mm: float, fill_hu: int) -> dict[str, float]:
    """Measure a volume.

    Args:
        hu: (Z, Y, X) int16 HU, indices increasing toward superior, anterior, right.
        spacing_mm: distance of voxel centers on all axes.
        fill_hu: the value of what holds no measurement, also the lowest.

    Returns:
        By name: `brain_hu`, `air_hu`, `bone_hu`, `brain_spread_hu`, `noise_hu`, `head_ml`, `height_mm`, `depth_mm`,
        `width_mm`, `top_share`, `asymmetry`, `metal_share`, `fill_share`; what each is, its function says.
    """
    voxel_ml = spacing_mm**3 / 1000
    measured = hu[hu > fill_hu]
    tissue = hu > TISSUE_HU
    head_ml = float(np.count_nonzero(tissue)) * voxel_ml
    figures = {"fill_share": 1 - measured.size / hu.size, "head_ml": head_ml}
    figures |= hu_figures(measured, fill_hu, voxel_ml, head_ml)
    figures["noise_hu"] = noise_hu(hu)
    if head_ml < LEAST_ML["head"]:
        nothing = dict.fromkeys(("height_mm", "depth_mm", "width_mm", "top_share", "asymmetry"), np.nan)
        return figures | nothing
    box = bounding_box(hu, tissue, spacing_mm)
    sides_mm = [(high - low) * spacing_mm for low, high in box]
    figures |= dict(zip(("height_mm", "depth_mm", "width_mm"), sides_mm, strict=True))
    figures["top_share"] = top_share(tissue, box[0])
    figures["asymmetry"] = asymmetry(hu, box[2], max(round(MIRROR_STEP_MM / spacing_mm), 1))
    return figures


def hu_figures(measured: Hu, fill_hu: int, voxel_ml: float, head_ml: float) -> dict[str, float]:
    """Return what the histogram of HU says.

    Args:
        measured: (N,) all values but the fill.
        fill_hu: the fill, lower than all.
        voxel_ml: volume of a voxel.
        head_ml: volume of all tissue.

    Returns:
        `air_hu`: median of what lies between the fill and `AIR_BELOW_HU`. `brain_hu`: median of what lies within
        `BRAIN_PEAK_HU` of the commonest value in `BRAIN_HU`, after smoothing. `brain_spread_hu`: distance of the
        quartiles of all in `BRAIN_HU`. `bone_hu`: 95th percentile of what is above `BONE_ABOVE_HU`. `metal_share`: of
        the tissue, at least `METAL_FROM_HU`.
    """
    lowest = min(fill_hu, LOWEST_HU)
    counts = np.bincount(measured.astype(np.int32) - lowest)

    def between(low: int, high: int) -> Counts:
        part = counts[low - lowest : max(high + 1, low) - lowest]
        return np.concatenate([part, np.zeros(max(high + 1 - low, 0) - part.size, np.int64)])

    def known(tissue: str, part: Counts, value: Callable[[], float]) -> float:
        return value() if part.sum() * voxel_ml >= LEAST_ML[tissue] else np.nan

    lowest_air = fill_hu + 1
    air, brain = between(lowest_air, AIR_BELOW_HU), between(*BRAIN_HU)
    bone = between(BONE_ABOVE_HU + 1, 32767)
    low, high = BRAIN_HU
    wide = between(low - SMOOTHED_HU, high + SMOOTHED_HU)
    peak = low + int(np.convolve(wide, np.ones(2 * SMOOTHED_HU + 1, np.int64), "valid").argmax())
    around = between(peak - BRAIN_PEAK_HU, peak + BRAIN_PEAK_HU)
    metal = between(METAL_FROM_HU, 32767).sum() * voxel_ml
    return {
        "air_hu": known("air", air, lambda: quantile(air, lowest_air, 0.5)),
        "brain_hu": known("brain", brain, lambda: quantile(around, peak - BRAIN_PEAK_HU, 0.5)),
        "brain_spread_hu": known("brain", brain, lambda: quantile(brain, low, 0.75) - quantile(brain, low, 0.25)),
        "bone_hu": known("bone", bone, lambda: quantile(bone, BONE_ABOVE_HU + 1, 0.95)),
        "metal_share": float(metal) / head_ml if head_ml >= LEAST_ML["head"] else np.nan,
    }


def quantile(counts: Counts, first: int, share: float) -> float:
    """Return a quantile of whole numbers by their counts, each taken as spread evenly over its bin.

    Args:
        counts: (N,) of `first`, `first` + 1 and so on; not all zero.
        first: the value of the first count.
        share: 0 to 1.
    """
    total = np.cumsum(counts)
    wanted = share * float(total[-1])
    place = int(np.searchsorted(total, wanted))
    below = float(total[place - 1]) if place else 0.0
    return first - 0.5 + place + (wanted - below) / float(counts[place])


def noise_hu(hu: Hu) -> float:
    """Estimate the noise in brain from differences of left-right neighbors that are both in `BRAIN_HU`.

    The mean absolute difference d of two values of one normal distribution is 2 s / sqrt(pi). Anatomy adds to it, and
    resampling has taken from it: to compare scans of one cache, not to state a scanner's noise. NaN below 1,000 pairs.

    Args:
        hu: (Z, Y, X); every fourth plane is looked at.
    """
    planes = hu[::NOISE_PLANE_STEP]
    low, high = BRAIN_HU
    inside = (planes >= low) & (planes <= high)
    pairs = inside[..., 1:] & inside[..., :-1]
    count = int(np.count_nonzero(pairs))
    if count < 1000:
        return float("nan")
    steps = np.abs(planes[..., 1:][pairs] - planes[..., :-1][pairs])
    return float(steps.mean(dtype=np.float64)) * math.sqrt(math.pi) / 2


def bounding_box(hu: Hu, tissue: NDArray[np.bool_], spacing_mm: float) -> tuple[tuple[int, int], ...]:
    """Return the first index and the one past the last of the head on z, y and x.

    On z, planes with at least `LEAST_PLANE_CM2` of tissue count (the fullest plane if there is none), on y and x any
    tissue does.

    Args:
        hu: (Z, Y, X).
        tissue: (Z, Y, X) where it is above `TISSUE_HU`; somewhere it is.
        spacing_mm: distance of voxel centers.
    """
    areas = plane_counts(tissue)
    planes = np.flatnonzero(areas >= min(LEAST_PLANE_CM2 * 100 / spacing_mm**2, areas.max()))
    seen_from_above = hu.max(axis=0) > TISSUE_HU
    rows, columns = (np.flatnonzero(seen_from_above.any(axis=axis)) for axis in (1, 0))
    return tuple((int(found[0]), int(found[-1]) + 1) for found in (planes, rows, columns))


def plane_counts(tissue: NDArray[np.bool_]) -> Counts:
    """Return how many voxels of each axial plane are tissue, (Z,)."""
    return np.array([np.count_nonzero(plane) for plane in tissue])


def top_share(tissue: NDArray[np.bool_], planes: tuple[int, int]) -> float:
    """Return the tissue in the highest plane of the head as a share of the fullest plane.

    A whole vertex tapers off, so this is small; a scan that ends below the vertex ends in a full cross-section.
    """
    areas = plane_counts(tissue)
    return float(areas[planes[1] - 1] / areas.max())


def asymmetry(hu: Hu, columns: tuple[int, int], step: int) -> float:
    """Return how much the head differs from its mirror image, 0 to 1.

    The mean absolute difference in the brain window, over what is tissue on either side, mirrored at the middle of the
    bounding box. A head turned in the scanner is asymmetric too.

    Args:
        hu: (Z, Y, X).
        columns: the bounding box on x.
        step: every how-manieth voxel is looked at.
    """
    coarse = hu[::step, ::step, columns[0] : columns[1]]
    reach = coarse.shape[2] // 2
    right, left = coarse[..., -1 : -reach - 1 : -step], coarse[..., :reach:step]
    either = (right > TISSUE_HU) | (left > TISSUE_HU)
    low, high = BRAIN_HU
    difference = np.clip(right, low, high) - np.clip(left, low, high)
    return float(np.abs(difference[either]).mean(dtype=np.float64)) / (high - low) if either.any() else float("nan")


def nothing_measured() -> dict[str, float]:
    """Return the names of `measure`, all NaN: a volume that can't be read."""
    return dict.fromkeys(measure(np.full((1, 1, 1), LOWEST_HU, np.int16), 1.0, LOWEST_HU), np.nan)
