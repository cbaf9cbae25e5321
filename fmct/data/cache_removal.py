"""Removing volumes from a cache: rows first, then files, and never anything that lies outside its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmct.console.errors import UsageError
from fmct.data.cache_contents import FoundFile, contents_of, files_in, plain_files, total_bytes, volume_folders
from fmct.data.cache_folders import SETTINGS_FILE
from fmct.data.cache_index import INDEX_FILE, LOCK_FILE, REJECTS_FILE
from fmct.data.volumes import VolumeCache

SECONDS_TO_BE_LEFT_OVER = 3600.0
"""Younger files that aren't in the index may belong to a run that goes on."""
OWN_FILES = (INDEX_FILE, REJECTS_FILE, LOCK_FILE, "index-*.parquet", "rejects-*.csv", "fingerprints-v*.parquet")


@dataclass(frozen=True)
class Removal:
    """What is to be removed.

    Attributes:
        folder: of the cache.
        files: files to delete, all of them within its folder.
        cache: whose index and rejects lose `scan_ids`; None where all of it goes, and the folder with it when nothing
            foreign is in it.
        scan_ids: scans to take out.
        kept: how many leftovers are too young to be told from the files of a run that goes on.
    """

    folder: Path
    files: Sequence[FoundFile]
    cache: VolumeCache | None = None
    scan_ids: Collection[str] = ()
    kept: int = 0

    @property
    def size_bytes(self) -> int:
        """How many bytes are freed."""
        return total_bytes(list(self.files))

    def carry_out(self) -> None:
        """Remove it all; cut off in between, it leaves files without rows, which can be removed as leftovers.

        Raises:
            LockedError: when another process holds the index for too long; then nothing is removed.
            OSError: when a file can't be deleted.
        """
        if self.cache is not None and self.scan_ids:
            self.cache.forget(self.scan_ids)
        for file in self.files:
            file.path.unlink(missing_ok=True)
        if self.cache is None:
            self._remove_empty_folders()

    def _remove_empty_folders(self) -> None:
        folder = self.folder
        for path in (*volume_folders(folder), folder / "volumes"):
            if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
                path.rmdir()
        (folder / SETTINGS_FILE).unlink(missing_ok=True)  # last: until now it is a cache, to be removed again
        if not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()


def refuse_link(folder: Path) -> None:
    """Refuse to remove volumes that only a link leads to.

    Raises:
        UsageError: when the volumes lie elsewhere.
    """
    volumes = folder / "volumes"
    if volumes.is_symlink():
        fix = "remove the link, or move the volumes here; nothing outside a cache's folder is ever removed"
        raise UsageError("the folder of the volumes is a link to elsewhere", volumes, fix)


def of_scans(cache: VolumeCache, scan_ids: Collection[str]) -> Removal:
    """Return the removal of some scans: volumes, rows and rejects."""
    refuse_link(cache.folder)
    folders = {folder.name: folder for folder in volume_folders(cache.folder)}
    files = []
    for path in map(cache.volume_path, scan_ids):
        if path.parent.name in folders and not path.is_symlink() and path.is_file():
            status = path.stat()
            files.append(FoundFile(path, status.st_size, status.st_mtime))
    return Removal(cache.folder, files, cache, tuple(scan_ids))


def of_leftovers(cache: VolumeCache) -> Removal:
    """Return the removal of temporary files, volumes that aren't in the index, and rows without a volume."""
    refuse_link(cache.folder)
    found = contents_of(cache)
    left = [*found.temporary, *found.unlisted]
    old = [file for file in left if time.time() - file.written > SECONDS_TO_BE_LEFT_OVER]
    return Removal(cache.folder, old, cache, found.lost, kept=len(left) - len(old))


def of_everything(folder: Path) -> Removal:
    """Return the removal of a folder of settings: all that fmct has written there, of any version, damaged or not.

    Raises:
        UsageError: when its settings.json isn't a cache's.
    """
    refuse_link(folder)
    try:
        str(json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))["settings"]["preset"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "if it is what is left of a cache, remove the folder by hand"
        raise UsageError("the settings.json there isn't a cache's", folder, fix) from error
    names = {path for pattern in OWN_FILES for path in folder.glob(pattern)}
    tables = [file for file in plain_files(folder) if file.path in names]
    return Removal(folder, [*files_in(folder), *tables])


def foreign_files(folder: Path) -> list[Path]:
    """Return what is still in a folder, after all that fmct wrote there was removed."""
    return sorted(folder.rglob("*")) if folder.exists() else []
