"""Which files under some folders could be scans: told by their first bytes, for names say nothing in an archive."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from fmct.console.errors import UsageError
from fmct.data.nifti import is_nifti

SKIPPED_FOLDERS = {"__MACOSX"}


def files_under(roots: Sequence[Path]) -> Iterator[Path]:
    """Yield every file once, in a fixed order, as absolute paths.

    Hidden files and folders and `__MACOSX` are passed over. Links to folders aren't followed; a link to a file counts
    if its target lies under the root that it was found in.

    Raises:
        UsageError: when a root doesn't exist.
    """
    seen: set[Path] = set()
    for root in roots:
        if not root.exists():
            raise UsageError("there is no such file or folder", root, "check the path; it is read as given")
        inside = root.resolve()
        for path in [inside] if inside.is_file() else walk(inside):
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                continue
            target = path.resolve() if path.is_symlink() else path
            if target not in seen and target.is_file():
                seen.add(target)
                yield path


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders, sorted, without hidden ones."""
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED_FOLDERS)
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def claims_to_be_scan(path: Path) -> bool:
    """Tell by its name whether a file is meant to be a scan: an empty one is reported then, not passed over."""
    return path.suffix.lower() in {".dcm", ".dicom", ".ima"} or is_nifti(path)
