"""What commands that take scans have in common: manifests, caches, or plain DICOM and NIfTI paths, in any mixture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, names_in
from fmct.console.errors import FmctError, UsageError, require_file

if TYPE_CHECKING:
    from fmct.data.own_grid import VoxelGrid
    from fmct.data.presets import AnySettings
    from fmct.data.rules import Rules
    from fmct.data.scan import Scan
    from fmct.data.volumes import Volume


@dataclass(frozen=True, eq=False)
class FoundScan:
    """A scan, preprocessed.

    Attributes:
        scan_id: as in manifests.
        path: as its manifest has it, or where it is on disk; "" where only a cache was named.
        patient_id: as its manifest has it, else "".
        volume: what was made of it.
        own_grid: where its voxels were measured; None where that isn't known (it came from a cache) or no affine can
            say it (uneven slices).
    """

    scan_id: str
    path: str
    patient_id: str
    volume: Volume
    own_grid: VoxelGrid | None = None


Scans = Iterator[FoundScan | FmctError]


class ScanInputs(Command):
    """Base of commands that read scans with the preprocessing that weights expect."""

    inputs: CliPositionalArg[list[Path]] = Field(description="manifests, cache folders, DICOM folders, NIfTI files")
    cache: Path | None = Field(None, description="cache that holds the manifests' scans")
    root: Path | None = Field(None, description="folder that the manifests' paths are relative to")
    skip_rules: str = Field(
        "", description="for plain paths: codes of rules to switch off, separated by commas, as `fmct index` takes them"
    )

    def require_inputs(self) -> None:
        """Check that every input is there.

        Raises:
            UsageError: naming the first that isn't.
        """
        for path in self.inputs:
            require_file(path, "the input", "name manifests, cache folders, DICOM folders or NIfTI files")

    def scans(self, settings: AnySettings) -> Scans:
        """Yield every scan once, or why one can't be read.

        Args:
            settings: how to preprocess; caches must have been made so.

        Raises:
            UsageError: when a cache was made with other preprocessing, or a manifest can't be read.
        """
        seen: set[str] = set()
        for path in self.inputs:
            for scan in self._scans_of(path, settings):
                if isinstance(scan, FmctError):
                    yield scan
                elif scan.scan_id not in seen:
                    seen.add(scan.scan_id)
                    yield scan

    def _scans_of(self, path: Path, settings: AnySettings) -> Scans:
        from fmct.data.manifest import read_manifest
        from fmct.data.rules import parse_rules

        if path.suffix in {".csv", ".parquet"}:
            frame = read_manifest(path, self.root)
            return of_manifest(frame, settings) if self.cache is None else of_cache(self.cache, settings, frame)
        if path.is_dir() and (list(path.glob("index.parquet")) or list(path.glob("*/index.parquet"))):
            return of_cache(path, settings)
        return of_disk([path], settings, parse_rules(names_in(self.skip_rules), ()))


def of_manifest(frame: pd.DataFrame, settings: AnySettings) -> Scans:
    """Read the scans of a manifest from disk and preprocess them."""
    from fmct.data.cache_building import load_row
    from fmct.data.manifest import scan_path
    from fmct.data.own_grid import grid_of_file, grid_of_stack
    from fmct.data.rules import codes_in
    from fmct.data.volume_making import make_volume

    root = Path(frame.attrs["root"])
    found: dict[Path, list[Scan]] = {}
    for row in frame.to_dict("records"):
        try:
            stack = load_row(row, root, found)
            volume = make_volume(stack, settings, row["path"], codes_in(row["skipped_rules"]))
            grid = grid_of_file(scan_path(row, root)) if row["format"] == "nifti" else grid_of_stack(stack)
            yield FoundScan(row["scan_id"], row["path"], row["patient_id"], volume, grid)
        except FmctError as error:
            yield error


def of_cache(folder: Path, settings: AnySettings, frame: pd.DataFrame | None = None) -> Scans:
    """Read the scans of a cache, all of them or those of a manifest.

    Raises:
        UsageError: when the cache was made with other preprocessing.
    """
    from fmct.data.presets import check_same_settings
    from fmct.data.volumes import Volume, VolumeCache

    cache = VolumeCache.open(folder)
    fix = "read the scans from disk, or preprocess them with the package's settings"
    check_same_settings(settings, cache.settings, cache.folder, fix)
    rows: Sequence[tuple[str, str, str]] = (
        [(scan_id, "", "") for scan_id in cache.index.index]
        if frame is None
        else list(zip(frame["scan_id"], frame["path"], frame["patient_id"], strict=True))
    )
    for scan_id, path, patient_id in rows:
        try:
            yield FoundScan(scan_id, path, patient_id, Volume(cache.read(scan_id), cache.affine(scan_id)))
        except FmctError as error:
            yield error


def of_disk(paths: list[Path], settings: AnySettings, rules: Rules) -> Scans:
    """Find scans below some paths and preprocess them."""
    from fmct.data.own_grid import grid_of_file, grid_of_stack
    from fmct.data.series import find_scans
    from fmct.data.volume_making import make_volume

    scans, rejects = find_scans(paths, rules)
    for reject in rejects:
        yield FmctError(f"{reject.code} ({reject.detail})", str(reject.path), "see the codes in the README")
    for scan in scans:
        try:
            stack = scan.load()
            volume = make_volume(stack, settings, str(scan.path), rules.skipped)
            grid = grid_of_file(scan.path) if scan.format == "nifti" else grid_of_stack(stack)
            yield FoundScan(scan.scan_id, str(scan.path), "", volume, grid)
        except FmctError as error:
            yield error


def nothing_read(inputs: Sequence[Path], what: str) -> UsageError:
    """Return the error about inputs that held no scan that could be `what`, such as "embedded"."""
    return UsageError(f"no scan could be {what}", ", ".join(map(str, inputs)), "see the reasons above")
