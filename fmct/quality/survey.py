"""Measuring every volume of a cache: one row per scan, with what the index and the manifest say about it.

Each volume is read once and forgotten, so memory doesn't grow with the cache.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import repeat
from typing import Any

import blosc2
import numpy as np
import pandas as pd

from fmct.console.errors import FmctError
from fmct.console.progress import track
from fmct.data.presets import require_hu
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

    Raises:
        FmctError: when a process dies.
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
    """Yield every scan's figures, in this process or from several."""
    if workers <= 1 or len(scan_ids) <= SCANS_AT_ONCE:
        yield from ((scan_id, figures(cache, scan_id)) for scan_id in scan_ids)
        return
    chunks = [scan_ids[start : start + SCANS_AT_ONCE] for start in range(0, len(scan_ids), SCANS_AT_ONCE)]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            for results in pool.map(figures_of, repeat(VolumeCache(cache.folder, cache.settings)), chunks):
                yield from results
        except BrokenProcessPool as error:
            what = "a process that measures volumes died, maybe for want of memory"
            raise FmctError(what, cache.folder, "run it again with fewer --workers") from error


def figures_of(cache: VolumeCache, scan_ids: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Measure several scans, to send less between processes."""
    blosc2.set_nthreads(1)
    return [(scan_id, figures(cache, scan_id)) for scan_id in scan_ids]


def figures(cache: VolumeCache, scan_id: str) -> dict[str, Any]:
    """Measure one scan; `problem` says why it can't be."""
    settings = require_hu(cache.settings, cache.folder)
    try:
        hu = read_hu(cache.volume_path(scan_id))
    except FmctError as error:
        return {**nothing_measured(), "problem": error.what}
    return {**measure(hu, settings.spacing_mm, settings.hu_min), "problem": ""}
