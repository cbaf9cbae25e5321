"""`fmct preprocess`: turn a manifest's scans into a cache of volumes."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field, ValidationError
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main, validation_error
from fmct.console.disk_space import writing_into
from fmct.console.errors import ExitCode, UsageError
from fmct.console.lock_file import LockedError
from fmct.console.progress import track
from fmct.data.cache_building import Batch, batches_of
from fmct.data.cache_verification import verify
from fmct.data.manifest import read_manifest, scan_path
from fmct.data.presets import PRESETS, AnySettings
from fmct.data.processes import run_jobs
from fmct.data.rejection import RejectCode
from fmct.data.volumes import VolumeCache
from fmct.index import print_codes

SECONDS_BETWEEN_SAVES = 60.0
SCANS_TO_PROBE = 100
GOES_ON = "it goes on with the scans that lack"


class Preprocess(Command):
    """Resample scans on an even grid in true geometry, crop on the head, and cache them as int16 HU.

    That is the preset isotropic. The preset fmhct does what the published system did, number for number: windows of
    96 voxels a side as float16, for published weights and for comparisons with them.

    The cache's folder is named after the settings; what is there already isn't made again, and scans that were rejected
    stay so (--retry-rejected tries them again), unless they were only not to be found. A scan that fails is listed in
    the folder's rejects.csv, and then the exit code is 3. Several runs may fill one cache at once. --verify checks
    every volume instead; the next run makes anew what it finds damaged.

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
    workers: int = Field(0, ge=0, description="processes; 0 and 1: this one")
    verify: bool = Field(False, description="only check what is cached, bytes and voxels; exit code 3 if any is bad")
    retry_rejected: bool = Field(False, description="try again what was rejected in an earlier run")
    json_output: bool = Field(False, alias="json", description="print the outcome as JSON")

    def run(self) -> ExitCode:
        """Preprocess what is missing and print what came of it."""
        settings = self._settings()
        frame = read_manifest(self.manifest, self.root)
        if self.verify:
            return self._verify(VolumeCache.open(self.cache / settings.folder_name()), frame["scan_id"].tolist())
        with writing_into(self.cache, lambda: 0, GOES_ON):
            cache = VolumeCache.create(self.cache, settings)
        missing = ~cache.has_volumes(frame["scan_id"])
        rejected = frame["scan_id"].isin(cache.rejected_ids(without=RejectCode.MISSING)) & missing
        todo = frame[missing if self.retry_rejected else missing & ~rejected]
        done_before, kept_out = int((~missing).sum()), 0 if self.retry_rejected else int(rejected.sum())
        self._check_root(todo.head(SCANS_TO_PROBE), frame.attrs["root"])
        batches = batches_of(todo.to_dict("records"), Path(frame.attrs["root"]), cache, self.workers)
        start = time.monotonic()
        codes = self._work(batches, cache)
        outcome: dict[str, Any] = {
            "folder": str(cache.folder),
            "cached": len(todo) - codes.total(),
            "rejected": {code.name: count for code, count in codes.items()},
            "cached_before": done_before,
            "rejected_before": kept_out,
            "seconds": round(time.monotonic() - start, 1),
        }
        self._report(outcome, codes, cache)
        return ExitCode.SOME_REJECTED if codes or kept_out else ExitCode.DONE

    def _settings(self) -> AnySettings:
        kind, where = PRESETS[self.preset], "the command line of `fmct preprocess`"
        known = {name for preset in PRESETS.values() for name in preset.model_fields}
        values = {name: getattr(self, name) for name in known & self.model_fields_set}
        foreign = sorted(values.keys() - kind.model_fields.keys())
        if foreign:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in foreign)
            fix = f"leave it out, or choose another preset than {self.preset}"
            raise UsageError(f"the preset {self.preset} has no {flags}", where, fix)
        if self.deface_ears and not self.deface:
            raise UsageError("--deface-ears needs --deface", where, "add --deface")
        if not self.head_crop and self.shape_voxels is not None:
            raise UsageError(
                "--shape-voxels and --no-head-crop exclude each other: uncropped volumes are as large as the scan",
                where,
                "leave one of them out",
            )
        try:
            return kind.model_validate(values)
        except ValidationError as error:
            raise validation_error(error, "fmct preprocess") from error

    def _check_root(self, frame: pd.DataFrame, root: str) -> None:
        if len(frame) and not any(scan_path(row, root).exists() for row in frame.to_dict("records")):
            raise UsageError(
                f"the scans aren't there: neither {frame['path'].iloc[0]} nor the {len(frame) - 1} after it",
                root,
                "pass the folder that the manifest's paths are relative to as --root (`fmct index` said which)",
            )

    def _work(self, batches: list[Batch], cache: VolumeCache) -> Counter[RejectCode]:
        codes: Counter[RejectCode] = Counter()
        done = (outcome for part in run_jobs(batches, self.workers) for outcome in part)
        scans = sum(len(batch.rows) for batch in batches)
        known = 0
        saved = time.monotonic()

        def bytes_needed() -> float:
            return float((scans - known) * cache.index["bytes"].mean())

        with writing_into(cache.folder, bytes_needed, GOES_ON):
            try:
                for known, outcome in enumerate(track(done, "preprocess", total=scans), 1):  # noqa: B007
                    if outcome.row is not None:
                        cache.record(outcome.scan_id, outcome.row)
                    elif outcome.code is not None:
                        cache.reject(outcome.scan_id, outcome.path, outcome.code, outcome.detail)
                        codes[outcome.code] += 1
                    if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                        cache.save_additions()
                        saved = time.monotonic()
            finally:
                try:
                    cache.save()
                except LockedError as error:  # nothing is lost: every reader takes the additions beside the index too
                    print(f"note: the index wasn't put together: {error}", file=sys.stderr)
        return codes

    def _verify(self, cache: VolumeCache, scan_ids: list[str]) -> ExitCode:
        found = verify(cache, scan_ids, self.workers)
        print(json.dumps(found.described(), indent=2) if self.json_output else found.text())
        return ExitCode.SOME_REJECTED if found.damaged or found.missing else ExitCode.DONE

    def _report(self, outcome: dict[str, Any], codes: Counter[RejectCode], cache: VolumeCache) -> None:
        if self.json_output:
            print(json.dumps(outcome, indent=2))
            return
        if outcome["cached_before"]:
            print(f"{outcome['cached_before']} scans were in the cache already")
        if outcome["rejected_before"]:
            print(f"{outcome['rejected_before']} scans were rejected before and stay so (--retry-rejected tries again)")
        print(f"{outcome['cached']} scans cached in {outcome['seconds']} s -> {cache.folder}")
        print_codes(codes, cache.folder / "rejects.csv")


COMMAND = Preprocess

if __name__ == "__main__":
    sys.exit(main(COMMAND))
