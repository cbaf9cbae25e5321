"""Measuring every volume of a cache: one row per scan, with what the index and the manifest say about it.

Each volume is read once and forgotten, so memory doesn't grow with the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import blosc2
import numpy as np
import pandas as pd

from fmct.console.errors import FmctError
from fmct.console.progress import track
from fmct.data.presets import require_hu
from fmct.data.processes import run_jobs
from fmct.data.volume_file import read_hu
from fmct.data.volumes import VolumeCache
from fmct.quality.statistics import measure, nothing_measured

SCANS_AT_ONCE = 16
SOURCE_COLUMNS = (
    "cropped_mm", "source_slices", "source_pixel_mm", "source_gap_mm", "source_gap_max_mm", "source_tilt_deg",
)  # fmt: skip
MANIFEST_COLUMNS = ("site", "manufacturer", "model", "kernel")


def survey(cache: VolumeCache, manifest: pd.DataFrame | None = None, workers: int = 0) -> pd.DataFrame:
    """Measure all scans of a cache.

    Args:
        cache: the cache.
        manifest: what it was made from, for the columns site, manufacturer, model and kernel.
        workers: processes; 0 and 1 mean this one.

    Returns:
        By scan_id, sorted: the figures of `measure`, NaN where a scan has none; `SOURCE_COLUMNS` of the index, NaN
        where it has none; `MANIFEST_COLUMNS`, "" where unknown; `problem`, why a volume can't be read, else "".
    """
    scan_ids = sorted(map(str, cache.index.index))
    rows = dict(track(measured(cache, scan_ids, workers), "measure", total=len(scan_ids)))
    frame = pd.DataFrame([rows[scan_id] for scan_id in scan_ids], index=pd.Index(scan_ids, name="scan_id"))
    index = cache.index.reindex(scan_ids)
    for name in SOURCE_COLUMNS:
        frame[name] = pd.to_numeric(index[name]).astype(float) if name in index else np.nan
    known = manifest.set_index("scan_id").reindex(scan_ids) if manifest is not None else None
    for name in MANIFEST_COLUMNS:
        frame[name] = known[name].fillna("").astype("str") if known is not None else ""
    return frame


def measured(cache: VolumeCache, scan_ids: Sequence[str], workers: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every scan's figures, in this process or from several; in any order."""
    chunks = [scan_ids[start : start + SCANS_AT_ONCE] for start in range(0, len(scan_ids), SCANS_AT_ONCE)]
    jobs = (MeasuringJob(VolumeCache(cache.folder, cache.settings), chunk) for chunk in chunks)
    for part in run_jobs(jobs, workers if len(chunks) > 1 else 0):
        yield from part


@dataclass(frozen=True)
class MeasuringJob:
    """Scans that one process measures."""

    cache: VolumeCache
    scan_ids: Sequence[str]

    def run(self) -> list[tuple[str, dict[str, Any]]]:
        """Measure them."""
        blosc2.set_nthreads(1)
        return [(scan_id, figures(self.cache, scan_id)) for scan_id in self.scan_ids]

    def singly(self) -> list[MeasuringJob]:
        """Return a job for each scan."""
        return [MeasuringJob(self.cache, [scan_id]) for scan_id in self.scan_ids]

    def failed(self, error: BaseException) -> list[tuple[str, dict[str, Any]]]:
        """Return what is said of a scan that can't be measured."""
        problem = f"measuring it broke off ({type(error).__name__})"
        return [(scan_id, {**nothing_measured(), "problem": problem}) for scan_id in self.scan_ids]


def figures(cache: VolumeCache, scan_id: str) -> dict[str, Any]:
    """Measure one scan; `problem` says why it can't be."""
    settings = require_hu(cache.settings, cache.folder)
    try:
        hu = read_hu(cache.volume_path(scan_id))
    except FmctError as error:
        return {**nothing_measured(), "problem": error.what}
    return {**measure(hu, settings.spacing_mm, settings.hu_min), "problem": ""}
