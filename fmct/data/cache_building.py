"""Preprocessing many scans into a cache: in this process or in Dask workers, and never stopped by a single scan.

A scan that fails is rejected with a code; one that kills its worker takes nobody with it, for its batch is tried again
scan by scan. Only the process that started all this writes the index.
"""

from __future__ import annotations

import traceback
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from fmct.console.errors import UsageError
from fmct.data.geometry import SliceStack, gantry_tilt_deg
from fmct.data.manifest import scan_path
from fmct.data.nifti import load_nifti
from fmct.data.path_names import is_redacted
from fmct.data.presets import AnySettings
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.rules import Rules, codes_in, loading_rules
from fmct.data.scan import Scan
from fmct.data.series import find_scans
from fmct.data.volume_making import make_volume
from fmct.data.volumes import VolumeCache

Row = Mapping[Hashable, Any]
LARGEST_BATCH = 8
LARGEST_BATCH_OF_ONE_FOLDER = 256


@dataclass(frozen=True)
class Outcome:
    """What became of a scan: its row of the cache's index, or why there is none."""

    scan_id: str
    path: str
    row: dict[str, Any] | None = None
    code: RejectCode | None = None
    detail: str = ""


@dataclass(frozen=True)
class Batch:
    """Scans that one process works on together, so that a folder of many series is read once.

    Attributes:
        rows: of the manifest.
        root: the folder that their paths are relative to.
        folder: the cache's folder.
        settings: how to preprocess.
    """

    rows: Sequence[Row]
    root: Path
    folder: Path
    settings: AnySettings
    found: dict[Path, list[Scan]] = field(default_factory=dict, repr=False)

    def run(self) -> list[Outcome]:
        """Preprocess the scans and write their volumes."""
        blosc2.set_nthreads(1)
        cache = VolumeCache(self.folder, self.settings)
        with threadpool_limits(1):  # a slice is too small to share: more threads only wait for each other
            return [self._one(row, cache) for row in self.rows]

    def singly(self) -> list[Batch]:
        """Return a batch for each scan."""
        return [replace(self, rows=[row]) for row in self.rows]

    def failed(self, error: BaseException) -> list[Outcome]:
        """Return the outcome of a batch that was lost with its worker."""
        detail = f"lost with its process ({type(error).__name__})"
        return [
            Outcome(str(row["scan_id"]), str(row["path"]), code=RejectCode.FAILED, detail=detail) for row in self.rows
        ]

    def _one(self, row: Row, cache: VolumeCache) -> Outcome:
        scan_id, path = str(row["scan_id"]), str(row["path"])
        adopted = cache.adopted(scan_id)
        if adopted is not None:
            return Outcome(scan_id, path, adopted)
        try:
            stack = load_row(row, self.root, self.found)
            volume = make_volume(stack, self.settings, path, codes_in(skipped_text(row)))
        except ScanError as error:
            return Outcome(scan_id, path, code=error.code, detail=naming_the_file(error, path))
        except UsageError as error:
            return Outcome(scan_id, path, code=RejectCode.MISSING, detail=error.what)
        except Exception as error:  # noqa: BLE001 - one odd scan must not stop a hundred thousand others
            return Outcome(scan_id, path, code=RejectCode.FAILED, detail=place_of(error))
        # not caught: what keeps the cache from being written (a full disk) ends the run
        return Outcome(scan_id, path, cache.store(scan_id, volume, source_facts(stack)))


def naming_the_file(error: ScanError, path: str) -> str:
    """Return what was found, with the slice's file before it where one is to blame and names may be written."""
    name = Path(str(error.where)).name
    return error.detail if is_redacted(path) or name == Path(path).name else f"{name}: {error.detail}"


def place_of(error: Exception) -> str:
    """Return an unexpected error's type and where it was raised, not its text, which may quote a header or a path."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}"


def load_row(row: Row, root: Path, found: dict[Path, list[Scan]]) -> SliceStack:
    """Read the scan that a manifest's row means.

    Args:
        row: with scan_id, path, format and maybe series_id.
        root: the folder that paths are relative to.
        found: the scans of folders that were searched before, kept for the next row of the same folder.

    Raises:
        ScanError: when it is missing or can't be read.
        UsageError: when the path leads out of the root.
    """
    path = scan_path(row, root)
    try:
        if not path.exists():
            raise ScanError(RejectCode.MISSING, path, "no such file or folder")
        if row["format"] == "nifti":
            return load_nifti(path)
        if path not in found:
            found[path] = find_scans([path], rules_of(row), root=root.resolve())[0]
        scan = matching_scan(found[path], row, path)
        check_complete(scan, row)
        return scan.load()
    except OSError as error:
        raise ScanError(RejectCode.UNREADABLE, path, f"can't be opened ({error.strerror})") from error


def matching_scan(scans: Sequence[Scan], row: Row, path: Path) -> Scan:
    """Return the scan in a folder that a manifest's row means: by scan_id, else by series_id, else the only one.

    Raises:
        ScanError: MISSING, when none or several come into question.
    """
    series_id = row.get("series_id") or ""
    for candidates in (
        [scan for scan in scans if scan.scan_id == row["scan_id"]],
        [scan for scan in scans if scan.facts["series_id"] == series_id],
        [] if series_id else list(scans),
    ):
        if len(candidates) == 1:
            return candidates[0]
    raise ScanError(RejectCode.MISSING, path, f"none of the {len(scans)} usable series in the folder is this one")


def rules_of(row: Row) -> Rules:
    """Return the rules by which a row's slices are found again."""
    return loading_rules(skipped_text(row))


def skipped_text(row: Row) -> str:
    """Return the codes of the rules that were switched off for a row, "" where it doesn't say."""
    return str(row.get("skipped_rules") or "")


def check_complete(scan: Scan, row: Row) -> None:
    """Check that a scan has the slices that it had when it was indexed.

    Raises:
        ScanError: MISSING, when it has more or fewer.
    """
    expected: Any = row.get("n_slices")
    if not pd.isna(expected) and int(expected) != len(scan.slices):
        detail = f"{len(scan.slices)} slices on disk, {int(expected)} in the manifest: run `fmct index` again"
        raise ScanError(RejectCode.MISSING, scan.path, detail)


def source_facts(stack: SliceStack) -> dict[str, float | int]:
    """Return what the index says about the scan that a volume was made of."""
    row_mm, column_mm = stack.pixel_mm
    return {
        "source_slices": len(stack.hu),
        "source_pixel_mm": round((row_mm * column_mm) ** 0.5, 4),
        "source_gap_mm": round(float(np.median(stack.gaps_mm)), 4),
        "source_gap_max_mm": round(float(stack.gaps_mm.max()), 4),
        "source_tilt_deg": round(gantry_tilt_deg(stack.origins_ras_mm, stack.normal_ras), 2),
    }


def batches_of(rows: Sequence[Row], root: Path, cache: VolumeCache, processes: int) -> list[Batch]:
    """Divide scans into batches: those in one folder stay together, and every process gets several batches.

    A folder that holds more scans than a batch (some data sets are one folder of a million files) is read here, once,
    and each batch is told which files are whose.
    """
    usual = max(1, min(LARGEST_BATCH, len(rows) // (4 * max(processes, 1))))
    batches: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: str(row["path"])):
        last = batches[-1] if batches else []
        same = bool(last) and last[-1]["path"] == row["path"]
        if last and len(last) < (LARGEST_BATCH_OF_ONE_FOLDER if same else usual):
            last.append(row)
        else:
            batches.append([row])
    made = [Batch(batch, root, cache.folder, cache.settings) for batch in batches]
    for _, alike in groupby(made, key=lambda batch: batch.rows[0]["path"]):  # sorted by path, so neighbors
        of_folder = list(alike)
        if len(of_folder) > 1 and all(row["format"] == "dicom" for batch in of_folder for row in batch.rows):
            tell_files(of_folder, processes)
    return made


def tell_files(batches: Sequence[Batch], processes: int) -> None:
    """Read the folder that several batches share, and tell each the files of its scans."""
    path = scan_path(batches[0].rows[0], batches[0].root)
    if path.is_dir():
        scans = {
            scan.scan_id: scan
            for scan in find_scans([path], rules_of(batches[0].rows[0]), processes, batches[0].root.resolve())[0]
        }
        for batch in batches:
            ids = [str(row["scan_id"]) for row in batch.rows]
            batch.found[path] = [scans[scan_id] for scan_id in ids if scan_id in scans]
