"""`fmct preprocess`: turn a manifest's scans into a cache of volumes."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field, ValidationError
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main, validation_error
from fmct.console.errors import ExitCode, FmctError, UsageError
from fmct.console.interruption import interruptible
from fmct.console.progress import track
from fmct.data.cache_journal import CacheJournal, journal_of
from fmct.data.cache_lock import locked
from fmct.data.clusters import Where
from fmct.data.manifest import read_manifest
from fmct.data.presets import IsotropicSettings
from fmct.data.rejection import RejectCode
from fmct.data.scan_outcome import Outcome
from fmct.data.slurm import parse_slurm
from fmct.data.volumes import SAFE_SCAN_ID, VolumeCache


class Preprocess(Command):
    """Resample scans on an even grid in true geometry, crop on the head, and cache them as int16 HU.

    The cache's folder is named after the settings; what is there already isn't made again, and scans that were rejected
    stay so (--retry-rejected tries them again), unless they were only not to be found. A scan that fails is listed in
    the folder's rejects.csv, and then the exit code is 3; so are those on which native code crashes (CRASHED) and those
    that take too long (TIMEOUT), for the work is done in child processes. Stopped by Ctrl-C or SIGTERM, the exit code
    is 75, and the same command goes on from there.

    Example: fmct preprocess data_manifests/archive.parquet --root /archive --cache /scratch/cache --workers 16
    """

    manifest: CliPositionalArg[Path] = Field(description="manifest of the scans")
    cache: Path = Field(description="folder of caches; one subfolder for each preprocessing")
    root: Path | None = Field(None, description="folder that the manifest's paths are relative to; default its own")
    spacing_mm: float = Field(1.5, description="distance of voxel centers on all axes")
    shape_voxels: int | None = Field(None, description="volumes are cubes of so many voxels a side; default 144")
    head_crop: bool = Field(True, description="crop on the head; otherwise the scan's whole bounding box")
    workers: int = Field(
        1,
        ge=0,
        description="processes of this machine; 0: in this one, where a scan that crashes or hangs ends the run",
    )
    scheduler: str | None = Field(None, description="run on a Dask scheduler's workers: tcp://HOST:8786, or its file")
    slurm: str | None = Field(
        None, description="run in SLURM jobs: partition=P,cores=16,walltime=HH:MM:SS[,jobs=4,memory=64GB,account=A]"
    )
    timeout_s: float = Field(300.0, gt=0, description="how long a scan may take; not with --workers 0")
    retry_rejected: bool = Field(False, description="try again what was rejected in an earlier run")
    json_output: bool = Field(False, alias="json", description="print the outcome as JSON")

    def run(self) -> ExitCode:
        """Preprocess what is missing and print what came of it."""
        settings, where = self._settings(), self._where()
        frame = read_manifest(self.manifest, self.root)
        folder = self.cache / settings.folder_name()
        tally = Tally(str(folder), str(where))
        interrupted = False
        try:
            with interruptible(), locked(folder), journal_of(VolumeCache.create(self.cache, settings)) as journal:
                todo = self._todo(frame, journal.cache, tally)
                if len(todo):
                    self._work(todo, where, journal, tally)
        except KeyboardInterrupt:
            interrupted = True
        except OSError as error:
            fix = "mend that, and run the same command again: what is done is kept"
            raise FmctError(f"the cache can't be written to ({error.strerror})", folder, fix) from error
        print(json.dumps(tally.as_json(), indent=2)) if self.json_output else tally.print()
        if interrupted:
            print("interrupted; what is done is kept: run the same command again to go on", file=sys.stderr)
            return ExitCode.PREEMPTED
        return ExitCode.SOME_REJECTED if tally.codes or tally.rejected_before else ExitCode.DONE

    def _todo(self, frame: pd.DataFrame, cache: VolumeCache, tally: Tally) -> pd.DataFrame:
        """Return the rows of the manifest that are to be worked on, and count the others."""
        unsafe = ~frame["scan_id"].str.fullmatch(SAFE_SCAN_ID)
        if unsafe.any():
            cache.volume_path(frame["scan_id"][unsafe].iloc[0])  # which raises
        missing = ~frame["scan_id"].isin(cache.present_ids())
        rejected = frame["scan_id"].isin(cache.rejected_ids(without=RejectCode.MISSING)) & missing
        tally.cached_before = int((~missing).sum())
        tally.rejected_before = 0 if self.retry_rejected else int(rejected.sum())
        return frame[missing if self.retry_rejected else missing & ~rejected]

    def _work(self, todo: pd.DataFrame, where: Where, journal: CacheJournal, tally: Tally) -> None:
        from fmct.data.cache_filling import fill  # here, for a run that has nothing to do needs none of it

        start = time.monotonic()
        root = Path(todo.attrs["root"])
        try:
            with closing(fill(todo, root, journal.cache, where, self.timeout_s)) as outcomes:
                for outcome in track(outcomes, "preprocess", total=len(todo)):
                    journal.enter(outcome)
                    tally.add(outcome)
        finally:
            tally.seconds = time.monotonic() - start

    def _where(self) -> Where:
        line = "the command line of `fmct preprocess`"
        given = [f"--{name}" for name in ("workers", "scheduler", "slurm") if name in self.model_fields_set]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} exclude each other", line, "say once where the work is to run")
        if self.workers == 0 and "timeout_s" in self.model_fields_set:
            what = "--timeout-s needs a process that can be ended, and --workers 0 is this one"
            raise UsageError(what, line, "leave one of them out")
        slurm = parse_slurm(self.slurm) if self.slurm is not None else None
        return Where(self.workers, self.scheduler, slurm, self.cache.resolve() / "slurm")

    def _settings(self) -> IsotropicSettings:
        values: dict[str, Any] = {"spacing_mm": self.spacing_mm, "head_crop": self.head_crop}
        if self.shape_voxels is not None:
            values["shape_voxels"] = self.shape_voxels
            if not self.head_crop:
                raise UsageError(
                    "--shape-voxels and --no-head-crop exclude each other: uncropped volumes are as large as the scan",
                    "the command line of `fmct preprocess`",
                    "leave one of them out",
                )
        try:
            return IsotropicSettings.model_validate(values)
        except ValidationError as error:
            raise validation_error(error, "fmct preprocess") from error


@dataclass
class Tally:
    """What a run has done.

    Attributes:
        folder: of the cache.
        where: where the work ran.
        cached: how many volumes were made.
        codes: why scans were rejected.
        cached_before: how many were there.
        rejected_before: how many stay rejected.
        seconds: how long it took.
    """

    folder: str
    where: str
    cached: int = 0
    codes: Counter[RejectCode] = field(default_factory=Counter)
    cached_before: int = 0
    rejected_before: int = 0
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count what became of a scan."""
        if outcome.code is None:
            self.cached += 1
        else:
            self.codes[outcome.code] += 1

    @property
    def scans_per_s(self) -> float:
        """How many scans were worked on in a second."""
        return round((self.cached + self.codes.total()) / self.seconds, 2) if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return it for a script to read."""
        return {
            "folder": self.folder,
            "cached": self.cached,
            "rejected": {code.name: count for code, count in self.codes.items()},
            "cached_before": self.cached_before,
            "rejected_before": self.rejected_before,
            "seconds": round(self.seconds, 1),
            "scans_per_s": self.scans_per_s,
            "where": self.where,
        }

    def print(self) -> None:
        """Print it."""
        if self.cached_before:
            print(f"{self.cached_before:,} scans were in the cache already")
        if self.rejected_before:
            print(f"{self.rejected_before:,} scans were rejected before and stay so (--retry-rejected tries again)")
        speed = f" in {self.seconds:.1f} s, {self.scans_per_s:g} scans/s, by {self.where}" if self.seconds else ""
        print(f"{self.cached:,} scans cached{speed} -> {self.folder}")
        if self.codes:
            from fmct.index import print_codes

            print_codes(self.codes, Path(self.folder) / "rejects.csv")


COMMAND = Preprocess

if __name__ == "__main__":
    sys.exit(main(COMMAND))
