"""`fmct index`: find scans, choose and reject them, write the manifest and rejects.csv."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from itertools import chain
from pathlib import Path

import pandas as pd
from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main, names_in
from fmct.console.errors import ExitCode, UsageError
from fmct.data.archive import read_archive
from fmct.data.criteria import read_criteria
from fmct.data.header_store import SCANS
from fmct.data.indexing import counted, judge_changed, manifest_of, rejects_of, rows_of
from fmct.data.manifest import write_manifest
from fmct.data.path_names import PathNames, escaped
from fmct.data.privacy import read_key
from fmct.data.reject_files import rejects_to_write, store_of
from fmct.data.rejection import RejectCode, write_rejects
from fmct.data.rules import parse_rules
from fmct.data.scan_table import with_known
from fmct.data.selection import Policy
from fmct.data.store_file import journal_of, open_store


class Index(Command):
    """Find DICOM series and NIfTI files, reject what is no head CT, and write one row per scan.

    Headers are read first; slices are grouped by study, series and orientation, sorted by position; spacing, gaps and
    tilt come from positions. A head scanned in two series (base and vertex) is joined by geometry. Of each study the
    thinnest soft-tissue axial series of a whole head without contrast is kept (--all-series keeps all), if a look at
    some of its slices shows HU and a head; else the next best. Every other series is in rejects.csv beside the manifest
    with a code and what was found, and then the exit code is 3. Where rejects.csv is another manifest's, it is in
    MANIFEST.rejects.csv.

    A second run reads only what changed: what was read is kept in MANIFEST.headers.sqlite.

    Patient and study are keyed hashes (for NIfTI, of the file's name without suffix); no name, number or date is
    written. Folder and file names are, as `path`; with --redact-paths they are keyed hashes too, which commands that
    read scans turn back with the same key.

    Example: fmct index /archive/2019 /archive/2020 --out data_manifests/archive.parquet --root /archive --workers 8
    """

    roots: CliPositionalArg[list[Path]] = Field(min_length=1, description="folders (or files) to search")
    out: Path = Field(description="manifest to write, .csv or .parquet")
    root: Path | None = Field(
        None,
        description="folder that paths are written relative to; default: the manifest's folder if it holds all scans, "
        "else the deepest folder that holds all roots",
    )
    key_file: Path | None = Field(
        None,
        description="secret key of the hashes, made where missing (mode 600); default $FMCT_KEY_FILE, else "
        "~/.config/fmct/patient_id.key",
    )
    site: str = Field("", description="name of the hospital, for the manifest's column `site`")
    table: Path | None = Field(
        None,
        description="what files don't say: a table with `path` as in the manifest, and `patient_id`, `site` or both",
    )
    criteria: Path | None = Field(
        None,
        description="allow-list of DICOM series: a table with StudyDescription, KVP, ConvolutionKernel (text or list)",
    )
    all_series: bool = Field(False, description="keep every usable series of a study, not only the best")
    skip_rules: str = Field("", description="codes of rules to switch off, separated by commas: GAP,NOT_A_HEAD")
    add_rules: str = Field("", description="codes of optional rules to switch on: CONTRAST")
    redact_paths: bool = Field(False, description="write keyed hashes for the names of folders and files")
    workers: int = Field(0, ge=0, description="processes that read; 0 and 1: this one")
    fresh: bool = Field(False, description="read everything again, also what hasn't changed")
    json_output: bool = Field(False, alias="json", description="print the outcome as JSON")

    def run(self) -> ExitCode:
        """Survey the roots, write both tables and print what came of it."""
        self._check()
        key = read_key(self.key_file)
        policy = Policy(
            parse_rules(names_in(self.skip_rules), names_in(self.add_rules)),
            read_criteria(self.criteria, key) if self.criteria else None,
            self.all_series,
        )
        root = self._root()
        names = PathNames(root, key if self.redact_paths else None)
        store_path, rejects_path = store_of(self.out), rejects_to_write(self.out)
        own = [path.resolve() for path in (self.out, rejects_path, store_path, journal_of(store_path))]
        files: Counter[str] = Counter()
        codes: Counter[RejectCode] = Counter()
        with open_store(store_path, names, key, self.fresh) as store:
            survey = read_archive(self.roots, store, key, self.workers, own)
            judge_changed(store, policy, key, self.workers)
            rows, copies = rows_of(store, files)
            frame = manifest_of(rows, self.site)
            if self.table is not None and len(frame):
                frame = with_known(frame, self.table, key)
            found = store.counts()
            if not any(found[kind] for kind in SCANS) and not survey.closed:
                self._nothing_found()
            rejects = store.by_path(chain(survey.closed, store.rejects(), copies, rejects_of(store, files)))
            write_manifest(frame, self.out)
            write_rejects(counted(rejects, codes), rejects_path)
        self._report(frame, codes, rejects_path, found + files + survey.passed, survey.unchanged, root)
        return ExitCode.SOME_REJECTED if codes else ExitCode.DONE

    def _check(self) -> None:
        if self.out.suffix not in {".csv", ".parquet"}:
            raise UsageError("a manifest is .csv or .parquet", self.out, "give --out a name that ends so")
        for path in self.roots:
            if not path.exists():
                raise UsageError("there is no such folder", path, "check the path; relative ones start here")

    def _nothing_found(self) -> None:
        where = ", ".join(str(path) for path in self.roots)
        raise UsageError("there is no DICOM image and no NIfTI file", where, "name the folder that holds the scans")

    def _root(self) -> Path:
        roots = [path.resolve() for path in self.roots]
        folder = self.out.resolve().parent
        if self.root is not None:
            outside = [path for path in roots if not path.is_relative_to(self.root.resolve())]
            if outside:
                raise UsageError(
                    f"--root {self.root} doesn't hold {outside[0]}", "--root", "name a folder that holds all"
                )
            return self.root.resolve()
        if all(path.is_relative_to(folder) for path in roots):
            return folder
        return Path(os.path.commonpath([path if path.is_dir() else path.parent for path in roots]))

    def _report(
        self,
        frame: pd.DataFrame,
        codes: Counter[RejectCode],
        rejects: Path,
        files: Counter[str],
        unchanged: int,
        root: Path,
    ) -> None:
        found = {kind: count for kind, count in sorted(files.items()) if count}
        if self.json_output:
            outcome = {
                "manifest": str(self.out),
                "rejects": str(rejects),
                "root": str(root),
                "scans": len(frame),
                "patients": int(frame["patient_id"].nunique()),
                "rejected": {code.name: count for code, count in codes.items()},
                "files": found,
                "unchanged_files": unchanged,
            }
            print(json.dumps(outcome, indent=2))
            return
        print("found")
        for kind, count in found.items():
            print(f"  {count:>9,}  {kind}")
        if unchanged:
            print(f"{unchanged:,} files are as they were and weren't read again")
        print(f"{len(frame):,} scans of {frame['patient_id'].nunique():,} patients -> {escaped(str(self.out))}")
        print_codes(codes, rejects)
        nifti = frame[frame["format"] == "nifti"]["patient_id"]
        if nifti.duplicated().any() and self.table is None:
            print(
                f"note: {nifti[nifti.duplicated()].nunique()} names of NIfTI files come more than once and so share a "
                "patient_id; if that's wrong, say whose they are with --table"
            )
        if root != self.out.resolve().parent:
            folder = escaped(str(root))
            print(f"paths are relative to {folder}: pass --root {folder} to commands that read scans")


def print_codes(codes: Counter[RejectCode], table: Path) -> None:
    """Print how many were rejected for which reason, the commonest first."""
    if codes:
        print(f"{codes.total():,} rejected -> {escaped(str(table))}")
    for code, count in codes.most_common():
        print(f"  {count:>9,}  {code.name:<20}{code.value}")


COMMAND = Index

if __name__ == "__main__":
    sys.exit(main(COMMAND))
