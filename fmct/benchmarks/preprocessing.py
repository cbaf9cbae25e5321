"""How fast scans are preprocessed, against the published chain as MONAI runs it and against bare decoding.

From files to a volume in memory, rules included, on one core: a process of its own measures all ways in turns, with one
thread each and with `MALLOC` in its environment, and each way runs once more in a fresh process to see its memory.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from fmct.benchmarks.timing import Timing, time_in_turns
from fmct.console.errors import UsageError
from fmct.data.nifti import is_nifti
from fmct.data.phantom.acquisition import scan
from fmct.data.phantom.head import HeadParameters, Pose
from fmct.data.phantom.scanner import SCANNERS, Overrides
from fmct.data.phantom.writer import Identity, write_dicom, write_nifti
from fmct.data.presets import AnySettings, FmhctSettings, IsotropicSettings

T = TypeVar("T")
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
"""glibc then keeps memory that was freed instead of asking for it, and having it zeroed, for every large array."""
PUBLISHED, DECODE = "published chain (MONAI)", "bare decode (pydicom)"
FMHCT, ISOTROPIC = "fmct, preset fmhct", "fmct, preset isotropic"
SCANNED_MM = 160.0
THICK, THIN = "NIfTI 512x512x32, 5 mm", "NIfTI 512x512x160, 1 mm"
THICK_DICOM = "DICOM 512x512x32, 5 mm"


@dataclass(frozen=True)
class Case:
    """What was measured on one scan.

    Attributes:
        name: of the scan.
        timings: of each way; the first is what the others are compared with.
        peak_mb: the most memory that each way took, Python and libraries included, by name.
    """

    name: str
    timings: list[Timing]
    peak_mb: Mapping[str, float]

    def ratio(self, timing: Timing) -> float:
        """How many times faster than the first way one is, by the medians."""
        return self.timings[0].median_s / timing.median_s


def measure_preprocessing(turns: int, source: Path | None = None) -> list[Case]:
    """Time the ways of preprocessing a thick and a thin NIfTI phantom and a DICOM phantom, and one's own scan.

    Args:
        turns: how often each way is timed, in turns; an untimed one goes first.
        source: a NIfTI file, or a folder that holds one DICOM series, to measure too.

    Raises:
        UsageError: when the source isn't there.
        ScanError: when the source is refused.
    """
    if source is not None and not source.exists():
        raise UsageError("there is no such scan", source, "name a NIfTI file or a folder with one DICOM series")
    if source is not None:
        run_preset(source.resolve(), FmhctSettings())  # to be refused here, before anything is measured
    with tempfile.TemporaryDirectory() as temporary, tuned_malloc():
        scans = write_phantoms(Path(temporary)) | ({source.name: source.resolve()} if source else {})
        return [measured(name, path, turns) for name, path in scans.items()]


def write_phantoms(folder: Path, only: str | None = None) -> dict[str, Path]:
    """Write the scans to measure on, or only one of the NIfTI files; return them by name."""
    paths = {THICK: folder / "thick.nii.gz", THIN: folder / "thin.nii.gz", THICK_DICOM: folder / "thick"}
    for name, slice_mm in ((THICK, 5.0), (THIN, 1.0)):
        if only not in {None, name}:
            continue
        pose = Pose()
        above_mm = 96.0 + pose.vertex_mm  # of the anterior commissure; slices go on until they are past it
        pose = pose.model_copy(update={"neck_mm": SCANNED_MM - 1.5 * slice_mm - above_mm})
        made = scan(
            HeadParameters(seed=8, pose=pose),
            SCANNERS["scanner_a"],
            np.random.default_rng(0),
            overrides=Overrides(slice_mm=slice_mm, matrix=512),
            even=True,
        )
        write_nifti(made, paths[name])
        if name == THICK and only is None:
            write_dicom(made, paths[THICK_DICOM], Identity(patient_id="B1", age_years=60, sex="F", study="bench"))
    return paths


@contextmanager
def tuned_malloc() -> Iterator[None]:
    """Put `MALLOC` into the environment for processes started meanwhile."""
    before = {name: os.environ.get(name) for name in MALLOC}
    os.environ.update(MALLOC)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def measured(name: str, path: Path, turns: int) -> Case:
    """Measure one scan in processes of their own."""
    names = list(ways(path))
    timings = in_fresh_process(partial(time_ways, path, turns))
    peaks = {way: in_fresh_process(partial(peak_mb, path, way)) for way in names}
    return Case(name, timings, peaks)


def in_fresh_process(work: Callable[[], T]) -> T:
    """Do something in a new process, and return what it returns."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work).result()


def ways(path: Path) -> dict[str, Callable[[], int]]:
    """Return the ways that a scan can be preprocessed, the one to compare with first."""
    ours = {
        FMHCT: partial(run_preset, path, FmhctSettings()),
        ISOTROPIC: partial(run_preset, path, IsotropicSettings()),
    }
    if is_nifti(path):
        return {PUBLISHED: partial(run_published, path), **ours}
    return {DECODE: partial(decode, path), **ours}


def time_ways(path: Path, turns: int) -> list[Timing]:
    """Time all ways in turns, after an untimed one."""
    with threadpool_limits(1):
        every = ways(path)
        for way in every.values():
            way()
        return time_in_turns(every, turns)


def peak_mb(path: Path, way: str) -> float:
    """Go one way, and return the most memory that this process ever held."""
    with threadpool_limits(1):
        ways(path)[way]()
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory in: Linux carries it over to a new program
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def run_published(path: Path) -> int:
    """Run the published chain."""
    import torch

    from fmct.benchmarks.published_chain import published_input

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        published_input(path)
    finally:
        torch.set_num_threads(threads)
    return 1


def run_preset(path: Path, settings: AnySettings) -> int:
    """Read a scan as `fmct preprocess` does, and make its volume."""
    from fmct.data.cache_building import Row, load_row
    from fmct.data.volume_making import make_volume

    row: Row = {"scan_id": path.name, "path": path.name, "format": "nifti" if is_nifti(path) else "dicom"}
    make_volume(load_row(row, path.parent, {}), settings, path.name)
    return 1


def decode(folder: Path) -> int:
    """Decode the pixels of all files of a folder, and nothing else."""
    import pydicom

    for file in sorted(folder.iterdir()):
        pydicom.dcmread(file).pixel_array  # noqa: B018 - reading it decodes
    return 1
