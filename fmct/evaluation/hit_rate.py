"""Does a map point at the lesion? The share of its most relevant voxels that lie there, against chance.

Of a head's voxels the top 5 % by relevance are asked how many lie within the lesion, dilated by one patch: a map can't
be finer than its patches. Chance is the dilated lesion's share of the head. That measures pointing, not segmentation: a
map that marks everything has the hit rate of chance, ratio 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage, stats

from fmct.evaluation.confidence import FEWEST_PATIENTS

TOP_SHARE = 0.05
REPLICATES = 2000

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Hit:
    """The result of one map on one scan with one lesion.

    Attributes:
        scan_id: which scan.
        patient_id: whose; the scan's own name where that isn't known.
        map: the map's name.
        lesion: the lesion's.
        hit_rate: share of the most relevant voxels within the dilated lesion.
        chance: the dilated lesion's share of the head.
    """

    scan_id: str
    patient_id: str
    map: str
    lesion: str
    hit_rate: float
    chance: float


def hit_rate(
    relevance: NDArray[np.floating], lesion: Mask, head: Mask, patch_zyx: Sequence[float], share: float = TOP_SHARE
) -> tuple[float, float]:
    """Compute how much of the most relevant voxels lies in a lesion, and how much would by chance.

    Args:
        relevance: (Z, Y, X).
        lesion: (Z, Y, X) bool, not empty.
        head: (Z, Y, X) bool, the voxels that count; not empty.
        patch_zyx: voxels of a patch along each axis, by which the lesion is dilated.
        share: how much of the head counts as most relevant.

    Returns:
        Hit rate and chance, in [0, 1]. Of equally relevant voxels of which only some are among the most relevant, each
        counts with that share, so that a constant map has the hit rate of chance, whatever the order of voxels.
    """
    apart = ndimage.distance_transform_edt(~lesion, sampling=[1 / edge for edge in patch_zyx])
    inside = (apart <= 1)[head]
    values = relevance[head]
    count = max(round(share * values.size), 1)
    threshold = np.partition(values, -count)[-count]
    above, tied = values > threshold, values == threshold
    hits = inside[above].sum() + (count - above.sum()) * inside[tied].mean()
    return float(hits / count), float(inside.mean())


def summarize_hits(hits: Sequence[Hit], seed: int = 0) -> list[dict[str, Any]]:
    """Summarize hit rates by map and lesion: means over scans, their ratio, and its interval.

    The interval is a percentile bootstrap (95 %) over patients, whose scans stay together; there is none with fewer
    than 5 patients.

    Returns:
        One dict per map and lesion: map, lesion, n_scans, n_patients, hit_rate, chance, ratio, ratio_ci (or None) and
        note.
    """
    if not hits:
        return []
    rows = []
    for (name, lesion), scans in pd.DataFrame([asdict(hit) for hit in hits]).groupby(["map", "lesion"], sort=False):
        sums = scans.groupby("patient_id")[["hit_rate", "chance"]].sum()
        interval, note = None, f"no interval: fewer than {FEWEST_PATIENTS} patients"
        if len(sums) >= FEWEST_PATIENTS:
            interval, note = ratio_interval(sums["hit_rate"].to_numpy(), sums["chance"].to_numpy(), seed), ""
        rows.append(
            {
                "map": name,
                "lesion": lesion,
                "n_scans": len(scans),
                "n_patients": len(sums),
                "hit_rate": float(scans["hit_rate"].mean()),
                "chance": float(scans["chance"].mean()),
                "ratio": float(scans["hit_rate"].sum() / scans["chance"].sum()),
                "ratio_ci": interval,
                "note": note,
            }
        )
    return rows


def ratio_interval(hit_rates: NDArray[np.floating], chances: NDArray[np.floating], seed: int) -> list[float]:
    """Return the interval of the sum of hit rates over that of chances, patients resampled: [low, high]."""

    def ratio(hit: NDArray[np.floating], chance: NDArray[np.floating], axis: int = -1) -> NDArray[np.floating]:
        value: NDArray[np.floating] = hit.sum(axis) / chance.sum(axis)
        return value

    found = stats.bootstrap(
        (hit_rates, chances), ratio, n_resamples=REPLICATES, paired=True, method="percentile", rng=seed
    ).confidence_interval
    return [float(found.low), float(found.high)]
