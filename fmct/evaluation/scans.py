"""The scans that a report shows for quality control, straight from the caches that the runs read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fmct.console.errors import FmctError
from fmct.data.presets import require_hu
from fmct.data.volumes import VolumeCache
from fmct.evaluation.montage import montage
from fmct.evaluation.run_folder import Run


@dataclass(frozen=True)
class CachePictures:
    """Pictures of the first scans of one cache, or why there are none.

    Attributes:
        path: the cache as the configuration names it.
        scans: how many the cache holds.
        pictures: (scan_id, PNG) pairs.
        problem: one sentence, empty when all went well.
    """

    path: Path
    scans: int = 0
    pictures: list[tuple[str, bytes]] = field(default_factory=list)
    problem: str = ""


def caches_of(runs: Sequence[Run]) -> list[Path]:
    """Return the distinct caches that the runs were trained on."""
    return list(dict.fromkeys(Path(run.data["cache"]) for run in runs if run.data.get("cache")))


def cache_pictures(path: Path, scans: int) -> CachePictures:
    """Draw the first scans of a cache.

    Args:
        path: the cache.
        scans: how many to draw at most.

    Returns:
        The pictures; where the cache is gone or a scan can't be read, `problem` says so.
    """
    if not path.exists():
        return CachePictures(path, problem="this cache isn't there any more, so its scans can't be shown")
    pictures: list[tuple[str, bytes]] = []
    try:
        cache = VolumeCache.open(path)
        require_hu(cache.settings, cache.folder)
        for scan_id in map(str, cache.index.index[:scans]):
            pictures.append((scan_id, montage({scan_id: cache.read(scan_id)}, titles=False)))
    except FmctError as error:
        held = len(cache.index) if pictures else 0
        return CachePictures(path, held, pictures, f"{error.what} ({error.where})")
    return CachePictures(path, len(cache.index), pictures)
