"""What is in a cache's folder: volumes, rejects, sizes, dates, and what runs that were killed have left behind."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmct.data.cache_folders import SUFFIX
from fmct.data.cache_index import SHAPE_COLUMNS
from fmct.data.volumes import VolumeCache

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}(\.\w+)?")
"""Names that `atomic_path` and locks give to files before these have their own."""
SUBFOLDER = re.compile(r"[0-9a-f]{2}")


@dataclass(frozen=True)
class FoundFile:
    """A file in a cache's folder: where, how large, and when it was last written (seconds since 1970)."""

    path: Path
    size_bytes: int
    written: float


@dataclass(frozen=True)
class Contents:
    """What a cache's folder holds.

    Attributes:
        cache: the cache.
        volumes: the files of volumes that are in the index.
        temporary: files of writes that were cut off, or are going on.
        unlisted: files of volumes that aren't in the index; `fmct preprocess` takes the good ones in.
        lost: scans in the index whose file isn't there; `fmct preprocess` makes them anew.
        shapes: how many volumes have which shape, (C,) Z x Y x X.
        rejected: how many scans were rejected with which code.
    """

    cache: VolumeCache
    volumes: list[FoundFile]
    temporary: list[FoundFile]
    unlisted: list[FoundFile]
    lost: list[str]
    shapes: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)

    def described(self) -> dict[str, Any]:
        """Return the figures, as `fmct cache ls --json` prints them; sizes in bytes, dates in seconds since 1970."""
        dates = [file.written for file in self.volumes]
        return {
            "folder": str(self.cache.folder),
            "settings": self.cache.settings.model_dump(mode="json"),
            "volumes": len(self.volumes),
            "shapes": dict(self.shapes),
            "bytes": total_bytes(self.volumes),
            "first_written": min(dates, default=None),
            "last_written": max(dates, default=None),
            "rejected": dict(self.rejected),
            "temporary_files": len(self.temporary),
            "temporary_bytes": total_bytes(self.temporary),
            "unlisted_volumes": [file.path.stem for file in self.unlisted],
            "unlisted_bytes": total_bytes(self.unlisted),
            "lost_volumes": self.lost,
        }


def total_bytes(files: list[FoundFile]) -> int:
    """Return how many bytes some files have."""
    return sum(file.size_bytes for file in files)


def contents_of(cache: VolumeCache) -> Contents:
    """Look through a cache's folder; links to folders aren't followed."""
    index = cache.index
    listed = set(map(str, index.index))
    volumes: list[FoundFile] = []
    temporary: list[FoundFile] = []
    unlisted: list[FoundFile] = []
    for file in files_in(cache.folder):
        if TEMPORARY.fullmatch(file.path.name):
            temporary.append(file)
        else:
            (volumes if file.path.stem in listed else unlisted).append(file)
    lost = sorted(listed - {file.path.stem for file in volumes})
    shapes: Counter[str] = Counter()
    for *shape, count in index.value_counts(["channels", *SHAPE_COLUMNS]).reset_index().itertuples(index=False):
        shapes[" x ".join(str(n) for n in (shape[1:] if shape[0] == 1 else shape))] += int(count)
    rejected = Counter(cache.rejects["code"].astype(str))
    return Contents(cache, volumes, temporary, unlisted, lost, shapes, rejected)


def files_in(folder: Path) -> Iterator[FoundFile]:
    """Yield volumes and temporary files of a cache; neither its tables and settings nor what isn't its own."""
    yield from (file for file in plain_files(folder) if TEMPORARY.fullmatch(file.path.name))
    for subfolder in volume_folders(folder):
        for file in plain_files(subfolder):
            if file.path.suffix == SUFFIX or TEMPORARY.fullmatch(file.path.name):
                yield file


def volume_folders(folder: Path) -> list[Path]:
    """Return the folders of a cache that hold volumes; none that is a link to elsewhere."""
    top = folder / "volumes"
    if top.is_symlink() or not top.is_dir():
        return []
    with os.scandir(top) as entries:
        return sorted(
            Path(entry) for entry in entries if SUBFOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        )


def plain_files(folder: Path) -> Iterator[FoundFile]:
    """Yield the files in a folder that are no links."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # renamed or removed by another process meanwhile
                    continue
                yield FoundFile(Path(entry), status.st_size, status.st_mtime)
