"""The ways from a scan's files to a volume whose times are compared."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fmct.data.cache_building import Row, load_row
from fmct.data.presets import AnySettings, FmhctSettings, IsotropicSettings
from fmct.data.series import find_scans
from fmct.data.volume_making import make_volume

PUBLISHED, DECODE = "published chain (MONAI)", "bare decode (pydicom)"
READ, FMHCT, ISOTROPIC = "fmct, reading alone", "fmct, preset fmhct", "fmct, preset isotropic"


@dataclass(frozen=True)
class Source:
    """A scan to measure.

    Attributes:
        name: what it is called.
        row: of a manifest with it.
        root: what the row's path is relative to.
        files: its DICOM files; none of NIfTI.
    """

    name: str
    row: Row
    root: Path
    files: tuple[Path, ...]


def scans_at(path: Path, name: str | None = None) -> list[Source]:
    """Return the usable scans at a path; without a name they are called by theirs."""
    root = path.parent
    found = []
    for scan in find_scans([path], root=root)[0]:
        where = str(scan.path.relative_to(root))
        row: dict[Hashable, Any] = {"scan_id": scan.scan_id, "path": where, "format": scan.format}
        row.update(scan.facts)
        files = tuple(dict.fromkeys(header.path for header in scan.slices))
        found.append(Source(name or where, row, root, files))
    return found


def ways(source: Source) -> dict[str, Callable[[], int]]:
    """Return the ways that a scan can be preprocessed, the one to compare with first."""
    ours = {
        FMHCT: partial(run_preset, source, FmhctSettings()),
        ISOTROPIC: partial(run_preset, source, IsotropicSettings()),
    }
    if not source.files:
        return {PUBLISHED: partial(run_published, source), **ours}
    return {DECODE: partial(decode, source), READ: partial(read, source), **ours}


def run_published(source: Source) -> int:
    """Run the published chain."""
    import torch

    from fmct.benchmarks.published_chain import published_input

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        published_input(source.root / str(source.row["path"]))
    finally:
        torch.set_num_threads(threads)
    return 1


def run_preset(source: Source, settings: AnySettings) -> int:
    """Read a scan as `fmct preprocess` does, and make its volume."""
    make_volume(load_row(source.row, source.root, {}), settings, source.name)
    return 1


def read(source: Source) -> int:
    """Find and read a scan as `fmct preprocess` does."""
    load_row(source.row, source.root, {})
    return 1


def decode(source: Source) -> int:
    """Decode the pixels of all files, and nothing else."""
    import pydicom

    for file in source.files:
        pydicom.dcmread(file).pixel_array  # noqa: B018 - reading it decodes
    return 1
