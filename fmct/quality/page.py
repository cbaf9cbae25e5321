"""The page: what stands out first, then a sample of all scans, histograms, counts and rejects, in one HTML file."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmct import __version__
from fmct.console.errors import FmctError, UsageError
from fmct.console.progress import track
from fmct.data.presets import require_hu
from fmct.data.volume_file import read_hu
from fmct.data.volumes import VolumeCache
from fmct.evaluation.templates import fill
from fmct.quality import groups, measures, outliers
from fmct.quality.counts import Waterfall, waterfall
from fmct.quality.histograms import Histogram, histograms, site_colors
from fmct.quality.outliers import Outlier, Typical
from fmct.quality.panels import Picture, scan_picture
from fmct.quality.reject_pictures import RejectPictures
from fmct.quality.rejects import Rejected, by_code
from fmct.quality.surface import surface_picture
from fmct.quality.survey import survey

Draw = Callable[[NDArray[np.int16], float, str], Picture]

WORST_SHOWN = 12
LISTED = 300


@dataclass(frozen=True)
class Sources:
    """What a page is made of.

    Attributes:
        cache: the cache.
        manifest: what it was made from, None where unknown.
        index_rejects: the rejects beside the manifest, None where there are none.
        root: the folder that paths of rejects are relative to, None where unknown.
    """

    cache: VolumeCache
    manifest: pd.DataFrame | None = None
    index_rejects: pd.DataFrame | None = None
    root: Path | None = None


@dataclass(frozen=True)
class Quality:
    """The outcome: for a person, for a script, and for whoever wants to look further.

    Attributes:
        html: the page.
        table: one row per scan, all figures of the page.
        outliers: the worst first.
        typical: what is usual.
        counts: from found to cached.
        rejected: by stage and code.
    """

    html: str
    table: pd.DataFrame
    outliers: list[Outlier]
    typical: list[Typical]
    counts: Waterfall
    rejected: list[Rejected]

    @property
    def can_tell(self) -> bool:
        """Whether there are enough scans to tell what is unusual."""
        return len(self.table) >= outliers.FEWEST_SCANS

    def numbers(self) -> dict[str, Any]:
        """Return what a script would read."""
        return {
            "scans": len(self.table),
            "outliers": [{"scan_id": one.scan_id, "reasons": list(one.reasons)} for one in self.outliers],
            "outliers_can_be_told": self.can_tell,
            "typical": {
                one.measure.name: {"median": one.median, "spread": one.spread, "scans": one.known}
                for one in self.typical
            },
            "waterfall": [
                {"step": one.code or one.title, "count": one.count, "left": one.left, "loss": one.is_loss}
                for one in self.counts.steps
            ],
            "single_files_rejected": self.counts.files,
            "rejected": [{"stage": one.stage, "code": one.code, "count": one.count} for one in self.rejected],
        }


def make_page(sources: Sources, montage: int, workers: int = 0) -> Quality:
    """Measure a cache and write the page.

    Args:
        sources: what to read.
        montage: how many scans to show at most.
        workers: processes that measure; 0 and 1 mean this one.

    Raises:
        UsageError: when the cache is empty.
        FmctError: when a process dies.
    """
    cache = sources.cache
    if not len(cache):
        raise UsageError(
            "the cache has no scan", cache.folder, "fill it with `fmct preprocess`; rejects.csv says why not"
        )
    frame = survey(cache, sources.manifest, workers)
    typical = outliers.typical_values(frame)
    found = outliers.find_outliers(frame, typical)
    rejects = cache.rejects
    counts = waterfall(
        map(str, cache.index.index),
        rejects,
        None if sources.manifest is None else map(str, sources.manifest["scan_id"]),
        sources.index_rejects,
    )
    defaced = require_hu(cache.settings, cache.folder).deface
    draw = RejectPictures(sources.root, faces=not defaced).draw
    rejected = by_code(rejects, "preprocessing", draw)
    if sources.index_rejects is not None:
        rejected = by_code(sources.index_rejects, "index", draw) + rejected
    sample = every_nth(list(map(str, frame.index)), montage)
    worst = [one.scan_id for one in outliers.worst_of_each_kind(found, WORST_SHOWN)]
    pictures = draw_scans(cache, [*worst, *sample], scan_picture)
    surfaces = draw_scans(cache, sample, surface_picture) if defaced else {}
    colors = site_colors(frame["site"])
    by_origin = groups.origin_groups(frame, {one.scan_id for one in found})
    context = {
        "cache": cache,
        "as_of": as_of(cache.folder),
        "version": __version__,
        "scans": len(frame),
        "unreadable": int((frame["problem"] != "").sum()),
        "has_manifest": sources.manifest is not None,
        "has_index_rejects": sources.index_rejects is not None,
        "outliers": found,
        "worst": [scan_view(one, frame, pictures) for one in worst],
        "listed": LISTED,
        "can_tell": len(frame) >= outliers.FEWEST_SCANS,
        "fewest": outliers.FEWEST_SCANS,
        "threshold": outliers.THRESHOLD,
        "reasons": {one.scan_id: one.reasons for one in found},
        "kinds": Counter(one.kind for one in found).most_common(),
        "apart": outliers.groups(frame, typical),
        "typical": typical,
        "sample": [scan_view(one, frame, pictures) for one in sample],
        "surfaces": [scan_view(one, frame, surfaces) for one in sample if one in surfaces],
        "step": -(-len(frame) // max(len(sample), 1)),
        "histograms": [histogram_view(one) for one in histograms(frame, typical, colors)],
        "colors": colors,
        "groups": by_origin[: groups.SHOWN_OPENLY],
        "more_groups": by_origin[groups.SHOWN_OPENLY : groups.SHOWN_AT_MOST],
        "groups_left": by_origin[groups.SHOWN_AT_MOST :],
        "has_sites": any(one.site for one in by_origin),
        "group_columns": [measures.MEASURE[name].title for name in groups.SHOWN],
        "counts": counts,
        "most": max(one.left + one.count * one.is_loss for one in counts.steps),
        "rejected": rejected,
        "root": sources.root,
    }
    table = outliers.with_scores(frame, typical, found)
    return Quality(fill("qc.html", context, "quality", "evaluation"), table, found, typical, counts, rejected)


def every_nth(scan_ids: Sequence[str], most: int) -> list[str]:
    """Return every n-th scan, n the least that gives no more than `most`."""
    return list(scan_ids[:: -(-len(scan_ids) // most)]) if most else []


def draw_scans(cache: VolumeCache, scan_ids: Sequence[str], draw: Draw) -> dict[str, Picture | str]:
    """Return pictures by scan_id; of a volume that can't be read, why not."""
    pictures: dict[str, Picture | str] = {}
    spacing_mm = require_hu(cache.settings, cache.folder).spacing_mm
    for scan_id in track(list(dict.fromkeys(scan_ids)), "draw"):
        try:
            pictures[scan_id] = draw(read_hu(cache.volume_path(scan_id)), spacing_mm, scan_id)
        except FmctError as error:
            pictures[scan_id] = error.what
    return pictures


def scan_view(scan_id: str, frame: pd.DataFrame, pictures: dict[str, Picture | str]) -> dict[str, Any]:
    """Return what a tile shows: the picture or why there is none, and where the scan is from."""
    drawn = pictures[scan_id]
    row = frame.loc[scan_id]
    origin = [str(row["site"]), f"{row['manufacturer']} {row['model']}".strip(), str(row["kernel"])]
    return {
        "scan_id": scan_id,
        "picture": None if isinstance(drawn, str) else drawn,
        "no_picture": drawn if isinstance(drawn, str) else "",
        "origin": ", ".join(part for part in origin if part),
    }


def histogram_view(one: Histogram) -> dict[str, str]:
    """Return a figure as the template takes it."""
    source = f"data:image/png;base64,{base64.b64encode(one.png).decode('ascii')}"
    return {"source": source, "alt": f"Histogram: {one.title}, {one.caption}", "caption": one.caption}


def as_of(folder: Path) -> str:
    """Return when the cache was last written: with it, equal caches give equal pages."""
    changed = datetime.fromtimestamp((folder / "index.parquet").stat().st_mtime, UTC)
    return f"{changed:%Y-%m-%d %H:%M} UTC"
