"""How fast scans are preprocessed, against the published chain as MONAI runs it and against bare decoding.

From files to a volume in memory, finding and rules included, on one core: a process of its own measures all ways in
turns, in processor time, with one thread each and with `MALLOC` in its environment, and each way runs once more in a
fresh process to see its memory.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from fmct.benchmarks.fresh_process import in_fresh_process, peak_memory
from fmct.benchmarks.preprocessing_ways import Source, run_preset, scans_at, ways
from fmct.benchmarks.timing import Timing, time_in_turns
from fmct.console.environment import changed_environment
from fmct.console.errors import UsageError
from fmct.data.phantom.acquisition import scan
from fmct.data.phantom.head import HeadParameters, Pose
from fmct.data.phantom.scanner import SCANNERS, Overrides
from fmct.data.phantom.writer import Identity, write_dicom, write_nifti
from fmct.data.presets import IsotropicSettings
from fmct.data.rejection import ScanError

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
"""glibc then keeps memory that was freed instead of asking for it, and having it zeroed, for every large array."""
DECODING_TIMES, BEYOND_DECODING_S = 1.3, 0.06
AIM = "1.3 x bare decode + 60 ms"
"""What `isotropic` may take of a DICOM series."""
SCANNED_MM = 160.0
THICK, THIN = "NIfTI 512x512x32, 5 mm", "NIfTI 512x512x160, 1 mm"
THICK_DICOM, THIN_DICOM = "DICOM 512x512x32, 5 mm", "DICOM 512x512x160, 1 mm"


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


def measure_preprocessing(turns: int, source: Path | None = None, phantoms: bool = True) -> list[Case]:
    """Time the ways of preprocessing thick and thin phantoms as NIfTI and DICOM, and one's own scans.

    Args:
        turns: how often each way is timed, in turns; an untimed one goes first.
        source: a NIfTI file, or a folder of scans, to measure too.
        phantoms: whether to measure the phantoms.

    Raises:
        UsageError: when the source isn't there or holds no scan.
        ScanError: when all its scans are refused, for the first of them.
    """
    sources = [] if source is None else measurable(source)
    with tempfile.TemporaryDirectory() as temporary, tuned_malloc():
        if phantoms:
            made = write_phantoms(Path(temporary))
            sources = [one for name, path in made.items() for one in scans_at(path, name)] + sources
        return [measured(one, turns) for one in sources]


def measurable(path: Path) -> list[Source]:
    """Return the scans at a path that a volume can be made of: they are tried, to be refused before anything else.

    Raises:
        UsageError: when there is none.
        ScanError: when all are refused, for the first of them.
    """
    if not path.exists():
        raise UsageError("there is no such scan", path, "name a NIfTI file or a folder of scans")
    refused: list[ScanError] = []
    fine = []
    for one in scans_at(path.resolve()):
        try:
            run_preset(one, IsotropicSettings())
        except ScanError as error:
            refused.append(error)
        else:
            fine.append(one)
    if not fine:
        raise refused[0] if refused else UsageError("there is no usable scan", path, "see what `fmct index` says of it")
    return fine


def write_phantoms(folder: Path, only: str | None = None) -> dict[str, Path]:
    """Write the scans to measure on, or only one of the NIfTI files; return them by name."""
    paths = {
        THICK: folder / "thick.nii.gz", THIN: folder / "thin.nii.gz",
        THICK_DICOM: folder / "thick", THIN_DICOM: folder / "thin",
    }  # fmt: skip
    for name, dicom, slice_mm in ((THICK, THICK_DICOM, 5.0), (THIN, THIN_DICOM, 1.0)):
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
        if only is None:
            write_dicom(made, paths[dicom], Identity(patient_id="B1", age_years=60, sex="F", study="bench"))
    return paths


def measured(source: Source, turns: int) -> Case:
    """Measure one scan in processes of their own."""
    timings = in_fresh_process(partial(time_ways, source, turns))
    peaks = {way: in_fresh_process(partial(peak_mb, source, way)) for way in ways(source)}
    return Case(source.name, timings, peaks)


def time_ways(source: Source, turns: int) -> list[Timing]:
    """Time all ways in turns, after an untimed one; of DICOM, also say what `isotropic` may take."""
    with threadpool_limits(1):
        every = ways(source)
        for way in every.values():
            way()
        timings = time_in_turns(every, turns, clock=time.process_time)
    if source.files:
        allowed = tuple(DECODING_TIMES * seconds + BEYOND_DECODING_S for seconds in timings[0].seconds)
        timings.append(Timing(AIM, allowed, 1))
    return timings


def peak_mb(source: Source, way: str) -> float:
    """Go one way, and return the most memory that this process ever held."""
    with threadpool_limits(1):
        ways(source)[way]()
    return peak_memory() / 2**20


def tuned_malloc() -> AbstractContextManager[None]:
    """Put `MALLOC` into the environment for processes started meanwhile."""
    return changed_environment(MALLOC)
