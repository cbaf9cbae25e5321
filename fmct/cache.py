"""`fmct cache`: what is in a cache, removing from it, and volumes as NIfTI."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, check_flags, main, names_in
from fmct.console.disk_space import in_units, writing_into
from fmct.console.errors import ExitCode, FmctError, UsageError
from fmct.console.progress import track
from fmct.data.cache_contents import Contents, contents_of, total_bytes
from fmct.data.cache_folders import preset_folder, preset_folders
from fmct.data.cache_removal import Removal, foreign_files, of_everything, of_leftovers, of_scans
from fmct.data.manifest import read_manifest
from fmct.data.volumes import VolumeCache

FLAGS_OF = {
    "ls": {"json_output"},
    "rm": {"scan_ids", "manifest", "everything", "leftovers", "yes"},
    "export": {"scan_ids", "manifest", "out", "overwrite"},
}
WHERE = "the command line of `fmct cache`"


class Cache(Command):
    """List what a cache holds, remove volumes from it, or write them as NIfTI.

    `ls`: settings, volumes, sizes, dates and rejects of each preprocessing in DIR, and what killed runs left behind:
    temporary files, volumes that aren't in the index (`fmct preprocess` takes them in), rows without a volume.
    `rm`: removes the volumes of --scan-ids or --manifest, --leftovers (older than an hour), or with --everything all
    of one preprocessing; asks first, or takes --yes. Nothing outside the cache's folder is ever touched.
    `export`: writes volumes to --out as NIfTI with their true affine, all of them or those of --scan-ids or --manifest.

    Example: fmct cache ls /scratch/cache
    Example: fmct cache export /scratch/cache --scan-ids 3f1c,90ab --out nifti/
    """

    action: CliPositionalArg[Literal["ls", "rm", "export"]] = Field(description="ls, rm or export")
    folder: CliPositionalArg[Path] = Field(description="a cache, or the folder of one preprocessing in it")
    scan_ids: str = Field("", description="rm, export: these scans, separated by commas")
    manifest: Path | None = Field(None, description="rm, export: the scans of a manifest")
    everything: bool = Field(False, description="rm: the whole folder of one preprocessing")
    leftovers: bool = Field(False, description="rm: what killed runs left behind, older than an hour")
    yes: bool = Field(False, description="rm: don't ask")
    out: Path | None = Field(None, description="export: folder to write into, SCAN_ID.nii.gz")
    overwrite: bool = Field(False, description="export: replace files that are there")
    json_output: bool = Field(False, alias="json", description="ls: print the outcome as JSON")

    def run(self) -> ExitCode:
        """Do what is asked."""
        check_flags(self, self.action, FLAGS_OF)
        return {"ls": self._list, "rm": self._remove, "export": self._export}[self.action]()

    def _list(self) -> ExitCode:
        folders = preset_folders(self.folder)
        found: list[Contents] = []
        problems: list[UsageError] = []
        for folder in folders:
            try:
                found.append(contents_of(VolumeCache.open(folder)))
            except UsageError as error:
                if len(folders) == 1:
                    raise
                problems.append(error)
        if self.json_output:
            print(json.dumps([contents.described() for contents in found], indent=2))
        elif found:
            print("\n\n".join(in_words(contents) for contents in found))
        for problem in problems:
            print(f"error: {problem}", file=sys.stderr)
        return ExitCode.SOME_REJECTED if problems else ExitCode.DONE

    def _remove(self) -> ExitCode:
        chosen = [bool(self.scan_ids), self.manifest is not None, self.everything, self.leftovers]
        if sum(chosen) != 1:
            fix = "give one of --scan-ids, --manifest, --leftovers and --everything"
            raise UsageError("what to remove must be said in one way", WHERE, fix)
        if self.everything:
            removal = of_everything(preset_folder(self.folder))
        else:
            cache = VolumeCache.open(self.folder)
            removal = of_leftovers(cache) if self.leftovers else of_scans(cache, self._scan_ids(cache))
        if removal.kept:
            print(f"{removal.kept} leftovers are younger than an hour and stay: a run may be going on")
        if not (removal.files or removal.scan_ids or self.everything):
            print(f"there is nothing to remove in {removal.folder}")
            return ExitCode.DONE
        if not self._confirmed(removal):
            print("nothing was removed")
            return ExitCode.DONE
        removal.carry_out()
        print(f"removed {counted(removal)} from {removal.folder}: {in_units(removal.size_bytes)} are free again")
        if self.everything and (foreign := foreign_files(removal.folder)):
            print(f"{len(foreign)} files there aren't the cache's and stay, {foreign[0].name} for one")
        return ExitCode.DONE

    def _confirmed(self, removal: Removal) -> bool:
        if self.yes:
            return True
        question = f"remove {counted(removal)}, {in_units(removal.size_bytes)}, from {removal.folder}"
        if not sys.stdin.isatty():
            raise UsageError(f"this would {question}", WHERE, "add --yes to do so: there is no terminal to ask on")
        print(f"{question[0].upper()}{question[1:]}? [y/N] ", end="", flush=True)
        return sys.stdin.readline().strip().lower() in {"y", "yes"}  # the end of input is a no

    def _scan_ids(self, cache: VolumeCache) -> list[str]:
        if self.scan_ids and self.manifest is not None:
            raise UsageError("--scan-ids and --manifest exclude each other", WHERE, "leave one of them out")
        if self.manifest is not None:
            wanted = read_manifest(self.manifest)["scan_id"]
            inside = wanted[wanted.isin(cache.index.index)].tolist()
            if len(inside) < len(wanted):
                print(f"{len(wanted) - len(inside)} of the manifest's {len(wanted)} scans aren't in the cache")
            return inside
        names = list(dict.fromkeys(names_in(self.scan_ids)))
        for name in names:
            if name not in cache:
                raise UsageError(f"there is no scan {name} in the cache", cache.folder, "see its index.parquet")
        return names

    def _export(self) -> ExitCode:
        if self.out is None:
            raise UsageError("export needs to know where to", WHERE, "add --out DIR")
        cache = VolumeCache.open(self.folder)
        chosen = self._scan_ids(cache) if self.scan_ids or self.manifest else cache.index.index.tolist()
        self._check_new([self.out / f"{scan_id}.nii.gz" for scan_id in chosen])
        self.out.mkdir(parents=True, exist_ok=True)
        problems: list[FmctError] = []
        raw_bytes = mean_raw_bytes(cache.index)
        with writing_into(self.out, lambda: raw_bytes * len(chosen) / 2, "with --overwrite it writes all again"):
            for scan_id in track(chosen, "export"):
                try:
                    cache.export_nifti(scan_id, self.out / f"{scan_id}.nii.gz")
                except FmctError as error:
                    problems.append(error)
        for problem in problems:
            print(f"error: {problem}", file=sys.stderr)
        print(f"{len(chosen) - len(problems)} volumes -> {self.out}")
        return ExitCode.SOME_REJECTED if problems else ExitCode.DONE

    def _check_new(self, paths: Sequence[Path]) -> None:
        there = [] if self.overwrite else [path for path in paths if path.exists()]
        if there:
            fix = "add --overwrite to replace them, or name another --out"
            raise UsageError(f"{len(there)} of the files are there already", there[0], fix)


def counted(removal: Removal) -> str:
    """Return how much is removed, in words."""
    rows = "" if removal.cache is None else f" and {len(removal.scan_ids)} rows of the index"
    return f"{len(removal.files)} files{rows}"


def mean_raw_bytes(index: pd.DataFrame) -> float:
    """Return how many bytes a volume of a cache has unpacked, on average."""
    voxels = index["channels"] * index["shape_z"] * index["shape_y"] * index["shape_x"]
    return float(voxels.mean()) * 2 if len(index) else 0.0


def in_words(contents: Contents) -> str:
    """Return what a cache's folder holds, for people to read."""
    settings = contents.cache.settings.model_dump(mode="json")
    size, volumes = total_bytes(contents.volumes), len(contents.volumes)
    each = f", {in_units(size / volumes)} each" if volumes else ""
    lines = [
        str(contents.cache.folder),
        f"  made with   {', '.join(f'{name} {said(value)}' for name, value in settings.items())}",
        f"  volumes     {volumes:,}, {in_units(size)}{each}; shapes Z x Y x X: {listing(contents.shapes)}",
        f"  rejected    {contents.rejected.total():,}: {listing(contents.rejected)}",
    ]
    if volumes:
        first, last = (day(pick(file.written for file in contents.volumes)) for pick in (min, max))
        lines.append(f"  written     {first} to {last}")
    for files, what, advice in (
        (contents.temporary, "temporary files", "of writes that were cut off, or go on"),
        (contents.unlisted, "volumes not in the index", "`fmct preprocess` takes in those that are good"),
    ):
        if files:
            lines.append(f"  left over   {len(files):,} {what}, {in_units(total_bytes(files))}: {advice}")
    if contents.lost:
        lines.append(f"  left over   {len(contents.lost):,} rows without a volume: `fmct preprocess` makes it anew")
    return "\n".join(lines)


def said(value: object) -> str:
    """Return a setting's value in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def listing(counts: Counter[str]) -> str:
    """Return counts in words, the most frequent first."""
    return ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(5)) or "none"


def day(seconds: float) -> str:
    """Return a date and time of day, local."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


COMMAND = Cache

if __name__ == "__main__":
    sys.exit(main(COMMAND))
