"""`fmct preprocess`: turn a manifest's scans into a cache of volumes."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field, ValidationError
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, flag_of, main, validation_error
from fmct.console.disk_space import writing_into
from fmct.console.errors import ExitCode, UsageError
from fmct.console.interruption import interruptible
from fmct.console.progress import track
from fmct.data.cache_recording import recording
from fmct.data.clusters import Where
from fmct.data.manifest import read_manifest
from fmct.data.presets import PRESETS, AnySettings
from fmct.data.rejection import RejectCode
from fmct.data.run_tally import Tally
from fmct.data.slurm import parse_slurm
from fmct.data.volumes import VolumeCache

GOES_ON = "it goes on with the scans that lack"
LINE = "the command line of `fmct preprocess`"
NOT_FOR_VERIFY = ("scheduler", "slurm", "timeout_s", "retry_rejected")


class Preprocess(Command):
    """Resample scans on an even grid in true geometry, crop on the head, and cache them as int16 HU.

    That is the preset isotropic. The preset fmhct does what the published system did, number for number: windows of
    96 voxels a side as float16, for published weights and for comparisons with them.

    The cache's folder is named after the settings; what is there already isn't made again, and scans that were rejected
    stay so (--retry-rejected tries them again), unless they were only not to be found. A scan that fails is listed in
    the folder's rejects.csv, and then the exit code is 3; so are those on which native code crashes (CRASHED) and those
    that take too long (TIMEOUT), for the work is done in child processes. Stopped by Ctrl-C or SIGTERM, the exit code
    is 75, and the same command goes on from there. Several runs may fill one cache at once. --verify checks every
    volume instead; the next run makes anew what it finds damaged.

    Example: fmct preprocess data_manifests/archive.parquet --root /archive --cache /scratch/cache --workers 16
    """

    manifest: CliPositionalArg[Path] = Field(description="manifest of the scans")
    cache: Path = Field(description="folder of caches; one subfolder for each preprocessing")
    root: Path | None = Field(None, description="folder that the manifest's paths are relative to; default its own")
    preset: Literal["isotropic", "fmhct"] = Field(
        "isotropic", description="isotropic: HU in true proportions; fmhct: what the published networks were fed"
    )
    spacing_mm: float = Field(1.5, description="isotropic: distance of voxel centers on all axes")
    shape_voxels: int | None = Field(
        None, description="volumes are cubes of so many voxels a side; default 144, fmhct: 96"
    )
    head_crop: bool = Field(True, description="isotropic: crop on the head; otherwise the scan's whole bounding box")
    deface: bool = Field(
        False, description="isotropic: take off the face: everything in front of a plane that clears the brain"
    )
    deface_ears: bool = Field(False, description="with --deface, take off the ears too")
    channels: int = Field(3, description="fmhct: windows, 3 or 1")
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
    verify: bool = Field(False, description="only check what is cached, bytes and voxels; exit code 3 if any is bad")
    retry_rejected: bool = Field(False, description="try again what was rejected in an earlier run")
    json_output: bool = Field(False, alias="json", description="print the outcome as JSON")

    def run(self) -> ExitCode:
        """Preprocess what is missing and print what came of it."""
        settings, where = self._settings(), self._where()
        if self.cache.exists() and not self.cache.is_dir():
            raise UsageError("the cache is a folder, and this is a file", self.cache, "name a folder as --cache")
        frame = read_manifest(self.manifest, self.root)
        if self.verify:
            return self._verify(VolumeCache.open(self.cache / settings.folder_name()), frame["scan_id"].tolist())
        folder = self.cache / settings.folder_name()
        tally = Tally(str(folder), str(where))
        interrupted = False
        try:
            with interruptible(), writing_into(folder, tally.bytes_needed, GOES_ON):
                if not folder.exists() and not where.elsewhere:
                    self._check_scans(frame)
                cache = VolumeCache.create(self.cache, settings)
                todo = self._todo(frame, cache, tally)
                if len(todo):
                    self._work(todo, where, cache, tally)
        except KeyboardInterrupt:
            interrupted = True
        print(json.dumps(tally.as_json(), indent=2)) if self.json_output else tally.print()
        if interrupted:
            print("interrupted; what is done is kept: run the same command again to go on", file=sys.stderr)
            return ExitCode.PREEMPTED
        return ExitCode.SOME_REJECTED if tally.codes or tally.rejected_before else ExitCode.DONE

    def _check_scans(self, frame: pd.DataFrame) -> None:
        """Check that scans are there before a new cache is made, which would stay behind empty."""
        from fmct.data.cache_filling import SCANS_TO_PROBE
        from fmct.data.worker_fitness import check_scans

        check_scans(Path(frame.attrs["root"]), frame.head(SCANS_TO_PROBE).to_dict("records"))

    def _todo(self, frame: pd.DataFrame, cache: VolumeCache, tally: Tally) -> pd.DataFrame:
        """Return the rows of the manifest that are to be worked on, and count the others."""
        missing = ~cache.has_volumes(frame["scan_id"])
        rejected = frame["scan_id"].isin(cache.rejected_ids(without=RejectCode.MISSING)) & missing
        tally.cached_before = int((~missing).sum())
        tally.rejected_before = 0 if self.retry_rejected else int(rejected.sum())
        return frame[missing if self.retry_rejected else missing & ~rejected]

    def _work(self, todo: pd.DataFrame, where: Where, cache: VolumeCache, tally: Tally) -> None:
        from fmct.data.cache_filling import fill  # here, for a run that has nothing to do needs none of it

        start = time.monotonic()
        root = Path(todo.attrs["root"])
        tally.to_do = len(todo)
        try:
            with recording(cache) as recorder, closing(fill(todo, root, cache, where, self.timeout_s)) as outcomes:
                for outcome in track(outcomes, "preprocess", total=len(todo)):
                    recorder.enter(outcome)
                    tally.add(outcome)
        finally:
            tally.seconds = time.monotonic() - start

    def _where(self) -> Where:
        given = [f"--{name}" for name in ("workers", "scheduler", "slurm") if name in self.model_fields_set]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} exclude each other", LINE, "say once where the work is to run")
        if self.verify:
            idle = [flag_of(type(self), name) for name in NOT_FOR_VERIFY if name in self.model_fields_set]
            if idle:
                fix = "leave it out: volumes are checked in --workers processes of this machine"
                raise UsageError(f"{' and '.join(idle)} doesn't go with --verify", LINE, fix)
        if self.workers == 0 and "timeout_s" in self.model_fields_set:
            what = "--timeout-s needs a process that can be ended, and --workers 0 is this one"
            raise UsageError(what, LINE, "leave one of them out")
        slurm = parse_slurm(self.slurm) if self.slurm is not None else None
        return Where(self.workers, self.scheduler, slurm, self.cache.resolve() / "slurm")

    def _settings(self) -> AnySettings:
        kind = PRESETS[self.preset]
        known = {name for preset in PRESETS.values() for name in preset.model_fields}
        values = {name: getattr(self, name) for name in known & self.model_fields_set}
        foreign = sorted(values.keys() - kind.model_fields.keys())
        if foreign:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in foreign)
            fix = f"leave it out, or choose another preset than {self.preset}"
            raise UsageError(f"the preset {self.preset} has no {flags}", LINE, fix)
        if self.deface_ears and not self.deface:
            raise UsageError("--deface-ears needs --deface", LINE, "add --deface")
        if not self.head_crop and self.shape_voxels is not None:
            raise UsageError(
                "--shape-voxels and --no-head-crop exclude each other: uncropped volumes are as large as the scan",
                LINE,
                "leave one of them out",
            )
        try:
            return kind.model_validate(values)
        except ValidationError as error:
            raise validation_error(error, "fmct preprocess") from error

    def _verify(self, cache: VolumeCache, scan_ids: list[str]) -> ExitCode:
        from fmct.data.cache_verification import verify

        found = verify(cache, scan_ids, self.workers)
        print(json.dumps(found.described(), indent=2) if self.json_output else found.text())
        return ExitCode.SOME_REJECTED if found.damaged or found.missing else ExitCode.DONE


COMMAND = Preprocess

if __name__ == "__main__":
    sys.exit(main(COMMAND))
