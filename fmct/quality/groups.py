"""Scans by where they come from: what is usual at each site, scanner and kernel, side by side."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd

from fmct.quality.measures import MEASURE

SHOWN = ("brain_hu", "air_hu", "bone_hu", "noise_hu", "height_mm", "source_gap_mm", "source_tilt_deg")
SHOWN_OPENLY, SHOWN_AT_MOST = 12, 100
ORIGIN = ("site", "manufacturer", "model", "kernel")


@dataclass(frozen=True)
class Group:
    """Scans of one origin.

    Attributes:
        site: "" where unknown.
        scanner: manufacturer and model.
        kernel: as the headers say it.
        scans: how many.
        outliers: how many of them stand out.
        medians: of `SHOWN`, as text, "–" where there is none.
    """

    site: str
    scanner: str
    kernel: str
    scans: int
    outliers: int
    medians: list[str]


def origin_groups(frame: pd.DataFrame, outliers: Collection[str]) -> list[Group]:
    """Return the groups, the largest first; none where nothing is known of any scan's origin.

    Args:
        frame: of `survey`.
        outliers: scan_ids of those that stand out.
    """
    if (frame[list(ORIGIN)] == "").all(axis=None):
        return []
    found = []
    for origin, rows in frame.groupby(list(ORIGIN)):
        site, manufacturer, model, kernel = map(str, origin)
        medians = [
            MEASURE[name].text(float(rows[name].median())) if rows[name].notna().any() else "–" for name in SHOWN
        ]
        standing_out = int(rows.index.isin(list(outliers)).sum())
        scanner = f"{manufacturer} {model}".strip()
        found.append(Group(site, scanner, kernel, len(rows), standing_out, medians))
    return sorted(found, key=lambda one: (-one.scans, one.site, one.scanner, one.kernel))
