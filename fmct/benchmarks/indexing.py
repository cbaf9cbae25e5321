"""How fast headers are read and an archive is indexed, against pydicom alone."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom

from fmct.benchmarks.table import Table
from fmct.benchmarks.timing import time_in_turns
from fmct.console.errors import FmctError
from fmct.data.dicom import has_prefix, read_headers
from fmct.data.phantom.acquisition import Scan
from fmct.data.phantom.scanner import SCANNERS, Protocol
from fmct.data.phantom.writer import Identity, write_dicom
from fmct.data.walk import files_under
from fmct.index import Index

SLICES = 40
MATRIX = 128
KEY = b"a key for measuring only, of no other use"


def write_archive(folder: Path, series: int) -> None:
    """Write series of `SLICES` images of noise, with all that a header has; small pixels, since they aren't read."""
    scanner = SCANNERS["scanner_a"]
    protocol = Protocol(
        kvp=120, tilt_deg=0.0, slice_mm=(4.0,) * SLICES, table_z_mm=tuple(4.0 * k for k in range(SLICES)),
        pixel_mm=1.8, matrix=MATRIX, center_mm=(0.0, 0.0),
    )  # fmt: skip
    hu = np.random.default_rng(0).integers(-1000, 1000, (SLICES, MATRIX, MATRIX)).astype(np.int16)
    for number in range(series):
        identity = Identity(patient_id=f"B{number:05d}", age_years=60, sex="F", study="bench")
        write_dicom(Scan(scanner, protocol, hu), folder / f"{number // 100:03d}" / f"{number:05d}", identity)


def measure_indexing(series: int, turns: int, source: Path | None = None) -> Table:
    """Time bare pydicom, header reading, a first and a second `fmct index`, each on one core.

    Args:
        series: how many series to write, without a source.
        turns: how often each is timed, in turns.
        source: a folder of one's own to read instead.
    """
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder = source or work / "archive"
        if source is None:
            write_archive(folder, series)
        files = [path for path in files_under([folder]) if has_prefix(path)]
        if not files:
            raise FmctError("there is no DICOM file to read", folder, "name a folder that holds some")
        ways: dict[str, Callable[[], int]] = {
            "pydicom.dcmread(stop_before_pixels=True)": lambda: read_bare(files),
            "fmct: headers": lambda: sum(len(read_headers(path, key=KEY)) for path in files),
            "fmct index, first run": lambda: index(folder, work, len(files), fresh=True),
            "fmct index, nothing changed": lambda: index(folder, work, len(files), fresh=False),
        }
        timings = time_in_turns(ways, turns)
        return Table(f"{len(files):,} DICOM files, one core, files in the page cache", "files", timings)


def read_bare(files: list[Path]) -> int:
    """Read headers with pydicom and look at two values."""
    for path in files:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        _ = dataset.get("SeriesInstanceUID"), dataset.get("ImagePositionPatient")
    return len(files)


def index(folder: Path, work: Path, files: int, fresh: bool) -> int:
    """Run `fmct index` on headers alone, silently."""
    command = Index(
        roots=[folder], out=work / "manifest.csv", root=folder, key_file=work / "key", all_series=True, fresh=fresh,
        skip_rules="IMPLAUSIBLE_HU,NOT_A_HEAD",
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        command.run()
    return files
