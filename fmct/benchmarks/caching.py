"""How fast volumes come out of the cache and how large they are, against the published form and against raw arrays."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fmct.benchmarks.timing import Timing, time_in_turns
from fmct.console.disk_space import in_units
from fmct.console.progress import track
from fmct.data.nifti import load_nifti
from fmct.data.phantom.cohort import CohortConfig, cases, make
from fmct.data.phantom.scanner import NO_OVERRIDES, Overrides
from fmct.data.preprocessing import preprocess_stack
from fmct.data.presets import IsotropicSettings
from fmct.data.volume_file import Volume, read_volume, write_volume
from fmct.views.windows import BONE, BRAIN, SUBDURAL, windows

SIDES = {96: 2.25, 144: 1.5}
"""Voxels a side, and their spacing in mm: both show 216 mm."""
PUBLISHED_SIDE = 96
PUBLISHED_SCANS = 361_663
"""In the data set that the published model was trained on."""
READS = 40

Write = Callable[[Volume, Path], object]
Read = Callable[[Path], object]


@dataclass(frozen=True)
class Form:
    """A way to keep a volume.

    Attributes:
        name: what it is.
        suffix: of its files.
        write: writes one.
        read: reads one.
    """

    name: str
    suffix: str
    write: Write
    read: Read


def measure_caching(scans: int, turns: int) -> tuple[list[Timing], list[str]]:
    """Time reads with one thread: the published form first, 3 x float16 by torch.save, which ratios refer to.

    Files are in the page cache, but for the ways "from disk", which have the system forget each file before it is
    read; what a disk or a network keeps in memory itself isn't reached by that.

    Args:
        scans: how many synthetic heads to read over and over.
        turns: how often each way is timed, in turns.

    Returns:
        The timings, and lines that say how large the files are.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sizes: list[str] = []
        ways: dict[str, Callable[[], int]] = {}
        for side, volumes in heads(scans, folder / "scans").items():
            for form in forms(side):
                name = f"{side}^3 {form.name}"
                paths = [folder / f"{side}_scan{number}{form.suffix}" for number in range(len(volumes))]
                if not paths[0].exists():  # otherwise it is another way to read the same files
                    for path, volume in zip(paths, volumes, strict=True):
                        form.write(volume, path)
                    sizes.append(size_line(name, paths))
                ways[name] = partial(read_files, form.read, paths)
                if hasattr(os, "posix_fadvise"):
                    ways[f"{name}, from disk"] = partial(read_files, form.read, paths, forget)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return time_in_turns(ways, turns), sizes
        finally:
            torch.set_num_threads(threads)


def heads(scans: int, folder: Path, overrides: Overrides = NO_OVERRIDES) -> dict[int, list[Volume]]:
    """Make synthetic heads, scanned (as large as real ones, without overrides) and preprocessed, by side of volume."""
    made: dict[int, list[Volume]] = {side: [] for side in SIDES}
    for case in track(cases(CohortConfig(scans=scans, format="nifti", overrides=overrides)), "make heads", scans):
        make(case, folder)
        stack = load_nifti(folder / case.path)
        for side, spacing_mm in SIDES.items():
            made[side].append(preprocess_stack(stack, IsotropicSettings(shape_voxels=side, spacing_mm=spacing_mm)))
    return made


def forms(side: int) -> list[Form]:
    """Return the ways to keep a cube; the published one only in its own size."""
    place = np.empty((side, side, side), np.int16)
    published = Form("published form: torch.save of 3 x float16", ".pt", save_windows, load_windows)
    return [
        *([published] if side == PUBLISHED_SIDE else []),
        Form("int16 .npy", ".npy", lambda volume, path: np.save(path, volume.voxels), np.load),
        Form("fmct", ".b2nd", write_own, read_volume),
        Form("fmct, into a given array", ".b2nd", write_own, lambda path: read_volume(path, place)),
    ]


def save_windows(volume: Volume, path: Path) -> None:
    """Save a volume as the published pipeline's cache does, but for what MONAI keeps beside the values."""
    hu = torch.from_numpy(volume.voxels)[None, None]
    torch.save(windows(hu, (BRAIN, SUBDURAL, BONE))[0].half(), path)


def load_windows(path: Path) -> Tensor:
    """Load what `save_windows` saved."""
    loaded: Tensor = torch.load(path, weights_only=True)
    return loaded


def write_own(volume: Volume, path: Path) -> None:
    """Write a volume as the cache does."""
    write_volume(volume, path, "isotropic-of-bench")


def read_files(read: Read, paths: Sequence[Path], before: Callable[[Path], None] | None = None) -> int:
    """Read files over and over.

    Args:
        read: reads one.
        paths: the files.
        before: is done with each file before it is read.

    Returns:
        How many were read.
    """
    for path in islice(cycle(paths), READS):
        if before is not None:
            before(path)
        read(path)
    return READS


def forget(path: Path) -> None:
    """Have the system drop a file from memory, so that it comes from the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # what isn't on the disk yet can't be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def size_line(name: str, paths: Sequence[Path]) -> str:
    """Return how large a form's files are, and what the published data set would take."""
    mean = sum(path.stat().st_size for path in paths) / len(paths)
    return f"{name}: {in_units(mean)} a scan, {in_units(mean * PUBLISHED_SCANS)} for {PUBLISHED_SCANS:,} scans"
