"""Where things are in a cache: a folder for each preprocessing, told by its settings.json, and the files in it."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from fmct.console.errors import UsageError, require_file

SETTINGS_FILE = "settings.json"
SAFE_SCAN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=-]{0,199}")
SUFFIX = ".b2nd"


def preset_folders(path: Path) -> list[Path]:
    """Return the folder of some settings, `path` itself, or all such folders in a cache's root.

    Raises:
        UsageError: when there is none.
    """
    fix = "make one with `fmct preprocess MANIFEST --cache DIR`"
    require_file(path, "the cache", fix)
    if (path / SETTINGS_FILE).exists():
        return [path]
    folders = sorted(file.parent for file in path.glob(f"*/{SETTINGS_FILE}"))
    if not folders:
        raise UsageError("the folder is no cache", path, fix)
    return folders


def preset_folder(path: Path) -> Path:
    """Return the folder of some settings: `path` itself, or the only one in it.

    Raises:
        UsageError: when there is none, or several to choose from.
    """
    folders = preset_folders(path)
    if len(folders) > 1:
        listed = ", ".join(folder.name for folder in folders)
        raise UsageError(f"the cache was made with several settings: {listed}", path, f"name one, such as {folders[0]}")
    return folders[0]


def volume_path(folder: Path, scan_id: str) -> Path:
    """Return where a scan's volume is in the folder of some settings.

    Raises:
        UsageError: when the scan_id is no safe file name.
    """
    if not SAFE_SCAN_ID.fullmatch(scan_id):
        raise UsageError(
            f"the scan_id {scan_id!r} can't be a file name",
            folder,
            "use letters, digits and . _ + = - only, not beginning with a dot, at most 200 characters",
        )
    return folder / "volumes" / hashlib.sha256(scan_id.encode()).hexdigest()[:2] / f"{scan_id}{SUFFIX}"


def volume_names(folder: Path) -> set[str]:
    """Return the names of all files among the volumes of a folder."""
    names: set[str] = set()
    for subfolder in (folder / "volumes").glob("[0-9a-f][0-9a-f]"):
        with os.scandir(subfolder) as entries:
            names.update(entry.name for entry in entries)
    return names
