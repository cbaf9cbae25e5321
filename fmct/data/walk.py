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
    for folder, names in folders_under(roots):
        yield from (folder / name for name in names)


def folders_under(roots: Sequence[Path], closed: list[OSError] | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Yield every folder once with the names of its files, as `files_under` has them; empty folders too.

    Args:
        roots: folders and files.
        closed: takes up the error of every folder that can't be listed.

    Raises:
        UsageError: when a root doesn't exist.
    """
    seen: set[Path] = set()
    linked: set[Path] = set()
    alone: dict[Path, list[str]] = {}
    for root in roots:
        if not root.exists():
            raise UsageError("there is no such file or folder", root, "check the path; it is read as given")
        inside = root.resolve()
        if inside.is_file():
            alone.setdefault(inside.parent, []).append(inside.name)
            continue
        for folder, names in walk(inside, closed if closed is not None else []):
            if folder not in seen:
                seen.add(folder)
                yield folder, [name for name in names if counts(folder / name, inside, linked)]
    for folder, names in alone.items():
        if folder not in seen:
            yield folder, sorted(set(names))


def walk(folder: Path, closed: list[OSError]) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and its subfolders with the names of their files, sorted, without hidden ones."""
    for parent, folders, names in os.walk(folder, onerror=closed.append, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED_FOLDERS)
        yield Path(parent), sorted(name for name in names if not name.startswith("."))


def counts(path: Path, inside: Path, linked: set[Path]) -> bool:
    """Tell whether a path is a file to look at: of links, the first to a file that lies inside and isn't hidden."""
    if not path.is_symlink():
        return path.is_file()
    target = path.resolve()
    if not target.is_relative_to(inside) or not target.is_file() or target in linked:
        return False
    hidden = any(part.startswith(".") or part in SKIPPED_FOLDERS for part in target.relative_to(inside).parts)
    linked.add(target)
    return hidden  # what isn't hidden is walked over by itself


def claims_to_be_scan(path: Path) -> bool:
    """Tell by its name whether a file is meant to be a scan: an empty one is reported then, not passed over."""
    return path.suffix.lower() in {".dcm", ".dicom", ".ima"} or is_nifti(path)
