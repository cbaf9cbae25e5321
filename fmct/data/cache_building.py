"""Preprocessing many scans into a cache, wherever it runs, and never stopped by a single scan.

A scan that fails is rejected with a code; one that crashes or hangs takes nobody with it where its batch is `Guarded`.
Only the process that started all this writes the index.
"""

from __future__ import annotations

import platform
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from fmct.console.errors import FmctError, UsageError
from fmct.data.code_places import place_of
from fmct.data.dicom import UNSHARED_KEY
from fmct.data.geometry import SliceStack, gantry_tilt_deg
from fmct.data.guarded_child import Crashed, TimedOut
from fmct.data.guarding import sign_of_life
from fmct.data.header_store import Seen
from fmct.data.manifest import scan_path
from fmct.data.nifti import load_nifti
from fmct.data.path_names import is_redacted
from fmct.data.presets import AnySettings
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.rules import Rules, codes_in, loading_rules
from fmct.data.scan import Scan
from fmct.data.scan_outcome import Outcome
from fmct.data.series import judged_scans, looked_at
from fmct.data.volume_making import make_volume
from fmct.data.volumes import VolumeCache

Row = Mapping[Hashable, Any]
FILES_BETWEEN_SIGNS = 256


@dataclass(frozen=True)
class Batch:
    """Scans that one process works on together, so that a folder of many series is read once.

    Attributes:
        rows: of the manifest.
        root: the folder that their paths are relative to.
        folder: the cache's folder.
        settings: how to preprocess.
        found: the scans in folders that were read before.
    """

    rows: Sequence[Row]
    root: Path
    folder: Path
    settings: AnySettings
    found: dict[Path, list[Scan]] = field(default_factory=dict, repr=False)

    def run(self) -> list[Outcome]:
        """Preprocess the scans and write their volumes."""
        return [outcome for part in self.parts() for outcome in part]

    def parts(self) -> Iterator[list[Outcome]]:
        """Preprocess scan by scan.

        Raises:
            FmctError: when the scans' root or the cache isn't to be seen from here.
        """
        self.check_folders()
        blosc2.set_nthreads(1)
        cache = VolumeCache(self.folder, self.settings)
        with threadpool_limits(1):  # a slice is too small to share: more threads only wait for each other
            for row in self.rows:
                yield [self._one(row, cache)]

    def singly(self) -> list[Batch]:
        """Return a batch for each scan."""
        return [replace(self, rows=[row]) for row in self.rows]

    def rest(self, first: int) -> Batch:
        """Return the batch without the scans before `first`."""
        return replace(self, rows=self.rows[first:])

    def failed(self, error: BaseException) -> list[Outcome]:
        """Return the outcome of a scan that its process didn't survive, or whose error nobody expected."""
        if isinstance(error, TimedOut):
            code, detail = RejectCode.TIMEOUT, str(error)
        elif isinstance(error, Crashed):
            code, detail = RejectCode.CRASHED, error.detail
        elif type(error).__name__ == "KilledWorker":  # by name, for Dask may not be loaded
            code, detail = RejectCode.CRASHED, "its worker was lost again and again"
        else:
            code, detail = RejectCode.FAILED, place_of(error)
        return [Outcome(str(row["scan_id"]), str(row["path"]), code=code, detail=detail) for row in self.rows]

    def check_folders(self) -> None:
        """Check that the scans' root and the cache are to be seen from here.

        Raises:
            FmctError: naming the folder and this machine.
        """
        for folder, sign in ((self.root, self.root), (self.folder, self.folder / "settings.json")):
            if not sign.exists():
                fix = "mount it there under the same name, and run the same command again: what is done is kept"
                raise FmctError(f"the folder isn't to be seen on {platform.node()}", folder, fix)

    def _one(self, row: Row, cache: VolumeCache) -> Outcome:
        scan_id, path = str(row["scan_id"]), str(row["path"])
        adopted = cache.adopted(scan_id)
        if adopted is not None:
            return Outcome(scan_id, path, adopted)
        try:
            stack = load_row(row, self.root, self.found)
            volume = make_volume(stack, self.settings, path, codes_in(skipped_text(row)))
        except ScanError as error:
            self.check_folders()  # the disk may have gone, and not the scan
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
            seen = looked_at([path], UNSHARED_KEY, workers=0, root=root.resolve(), pixels=True)
            found[path] = judged_scans(signalling(seen), rules_of(row))[0]
        scan = matching_scan(found[path], row, path)
        check_complete(scan, row)
        return scan.load()
    except OSError as error:
        raise ScanError(RejectCode.UNREADABLE, path, f"can't be opened ({error.strerror})") from error


def signalling(seen: Iterable[tuple[Path, Seen]]) -> Iterator[tuple[Path, Seen]]:
    """Yield what the files of a folder are, giving signs of life: there may be a million of them."""
    for number, one in enumerate(seen):
        if number % FILES_BETWEEN_SIGNS == 0:
            sign_of_life()
        yield one


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
