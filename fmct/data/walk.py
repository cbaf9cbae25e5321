"""Which files under some folders could be scans: all but hidden ones, for names say nothing in an archive."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fmct.console.errors import UsageError
from fmct.data.nifti import is_nifti

SKIPPED_FOLDERS = {"__MACOSX"}


@dataclass
class PassedOver:
    """What a walk came by and didn't look at.

    Attributes:
        closed: the errors of folders that can't be listed.
        counts: how many of what else.
    """

    closed: list[OSError] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def files_under(paths: Sequence[Path], root: Path | None = None) -> Iterator[Path]:
    """Yield every file once, in a fixed order, as absolute paths.

    Hidden files and folders and `__MACOSX` are passed over. Links to folders aren't followed; a link to a file counts
    if its target lies inside and is hidden there (as some version control has it), for others are met by themselves.

    Args:
        paths: folders and files.
        root: inside of what the targets of links must be; None means the folder that the link was found under.

    Raises:
        UsageError: when a path doesn't exist.
    """
    for folder, names in folders_under(paths, root=root):
        yield from (folder / name for name in names)


def folders_under(
    paths: Sequence[Path], passed: PassedOver | None = None, own: Collection[Path] = (), root: Path | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Yield every folder once with the names of its files, as `files_under` has them; empty folders too.

    Args:
        paths: folders and files.
        passed: takes up what isn't looked at.
        own: files that the program itself writes while it walks.
        root: inside of what the targets of links must be; None means the folder that the link was found under.

    Raises:
        UsageError: when a path doesn't exist.
    """
    passed = passed if passed is not None else PassedOver()
    tops = distinct(paths)
    linked: set[str] = set()
    mine = {str(path) for path in own}
    homes = {str(path.parent) for path in own}
    alone: dict[Path, list[str]] = {}
    for top in tops:
        if not top.is_dir():
            alone.setdefault(top.parent, []).append(top.name)
            continue
        inside = root.resolve() if root is not None else top
        for folder, names, others in walk(top, passed):
            names += [entry.name for entry in others if counts(entry, inside, linked, passed)]
            if folder in homes:
                names = [name for name in names if f"{folder}/{name}" not in mine]
            yield Path(folder), sorted(names)
    for parent, names in alone.items():
        yield parent, sorted(names)


def distinct(paths: Sequence[Path]) -> list[Path]:
    """Return folders and files as they are on disk, without those that a walk over another one comes to.

    Raises:
        UsageError: when a path doesn't exist.
    """
    for path in paths:
        if not path.exists():
            raise UsageError("there is no such file or folder", path, "check the path; it is read as given")
    resolved = list(dict.fromkeys(path.resolve() for path in paths))
    folders = [path for path in resolved if path.is_dir()]
    return [path for path in resolved if not any(comes_to(top, path) for top in folders if top != path)]


def comes_to(top: Path, path: Path) -> bool:
    """Tell whether a walk over a folder comes to a path: that lies in it and isn't hidden."""
    return path.is_relative_to(top) and not any(is_hidden(part) for part in path.relative_to(top).parts)


def is_hidden(name: str) -> bool:
    """Tell the names of files and folders that are passed over."""
    return name.startswith(".") or name in SKIPPED_FOLDERS


def walk(top: Path, passed: PassedOver) -> Iterator[tuple[str, list[str], list[os.DirEntry[str]]]]:
    """Yield a folder and those in it, however deep, each with the names of its files and what else is in it."""
    pending = [str(top)]
    while pending:
        folder = pending.pop()
        folders: list[str] = []
        names: list[str] = []
        others: list[os.DirEntry[str]] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        passed.counts["hidden files and folders"] += 1
                    elif entry.is_file(follow_symlinks=False):
                        names.append(entry.name)
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        others.append(entry)
        except OSError as error:
            passed.closed.append(error)
            continue
        pending += sorted(folders, reverse=True)
        yield folder, names, sorted(others, key=lambda entry: entry.name)


def counts(entry: os.DirEntry[str], inside: Path, linked: set[str], passed: PassedOver) -> bool:
    """Tell whether to look at what is neither file nor folder: only at the first link to a hidden file inside."""
    if not entry.is_symlink():
        passed.counts["pipes, sockets and devices"] += 1
        return False
    target = Path(os.path.realpath(entry.path))  # unlike Path.resolve, it ends on links that lead in a circle
    if not target.is_file():
        passed.counts["links to folders, or to nothing"] += 1
    elif not target.is_relative_to(inside):
        passed.counts["links to files outside"] += 1
    elif str(target) in linked or not any(is_hidden(part) for part in target.relative_to(inside).parts):
        passed.counts["links to files that are read anyway"] += 1
    else:
        linked.add(str(target))
        return True
    return False


def claims_to_be_scan(path: Path) -> bool:
    """Tell by its name whether a file is meant to be a scan: if it isn't, that's reported and not passed over."""
    return path.suffix.lower() in {".dcm", ".dicom", ".ima"} or is_nifti(path)
