"""`fmct index`: find scans, choose and reject them, write the manifest and rejects.csv."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main
from fmct.console.errors import ExitCode, UsageError
from fmct.data.manifest import COLUMNS, with_types, write_manifest
from fmct.data.privacy import keyed_id, read_key
from fmct.data.rejection import Reject, RejectCode, write_rejects
from fmct.data.scan import Scan
from fmct.data.scan_table import with_known
from fmct.data.series import Findings, survey


class Index(Command):
    """Find DICOM series and NIfTI files, reject what is no head CT, and write one row per scan.

    Reads headers only. Slices are grouped by series and sorted by position; spacing and tilt come from positions.
    Patient and study are keyed hashes (for NIfTI, of the file's name without suffix); no name, number or date is
    written. Folder and file names are, as `path`: don't name folders after patients. What was rejected is in
    rejects.csv beside the manifest, and then the exit code is 3.

    Example: fmct index /archive/2019 /archive/2020 --out data_manifests/archive.parquet --root /archive
    """

    roots: CliPositionalArg[list[Path]] = Field(min_length=1, description="folders (or files) to search")
    out: Path = Field(description="manifest to write, .csv or .parquet")
    root: Path | None = Field(
        None,
        description="folder that paths are written relative to; default: the manifest's folder if it holds all scans, "
        "else the deepest folder that holds all roots",
    )
    key_file: Path | None = Field(
        None, description="secret key of the hashes, made where missing; default ~/.config/fmct/patient_id.key"
    )
    site: str = Field("", description="name of the hospital, for the manifest's column `site`")
    table: Path | None = Field(
        None,
        description="what files don't say: a table with `path` as in the manifest, and `patient_id`, `site` or both",
    )
    workers: int = Field(0, ge=0, description="processes that read headers; 0 and 1: this one")
    json_output: bool = Field(False, alias="json", description="print the outcome as JSON")

    def run(self) -> ExitCode:
        """Survey the roots, write both tables and print what came of it."""
        if self.out.suffix not in {".csv", ".parquet"}:
            raise UsageError("a manifest is .csv or .parquet", self.out, "give --out a name that ends so")
        for path in self.roots:
            if not path.exists():
                raise UsageError("there is no such folder", path, "check the path; relative ones start here")
        root = self._root()
        key = read_key(self.key_file)
        findings = survey(self.roots, self.workers, progress=True, key=key)
        if not findings.scans and not findings.rejects:
            where = ", ".join(str(path) for path in self.roots)
            raise UsageError("there is no DICOM image and no NIfTI file", where, "name the folder that holds the scans")
        scans = without_twins(findings)
        frame = manifest_of(scans, root, key, self.site)
        if self.table is not None:
            frame = with_known(frame, self.table, key)
        write_manifest(frame, self.out)
        rejects = [
            Reject(os.path.relpath(reject.path, root), reject.code, reject.detail) for reject in findings.rejects
        ]
        write_rejects(rejects, self.out.with_name("rejects.csv"))
        self._report(findings, scans, frame, root)
        return ExitCode.SOME_REJECTED if rejects else ExitCode.DONE

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

    def _report(self, findings: Findings, scans: Sequence[Scan], frame: pd.DataFrame, root: Path) -> None:
        codes = Counter(reject.code for reject in findings.rejects)
        passed_over = {kind: count for kind, count in sorted(findings.counts.items()) if count}
        root_needed = root != self.out.resolve().parent
        if self.json_output:
            outcome = {
                "manifest": str(self.out),
                "root": str(root),
                "scans": len(scans),
                "patients": int(frame["patient_id"].nunique()),
                "rejected": {code.name: count for code, count in codes.items()},
                "files": passed_over,
            }
            print(json.dumps(outcome, indent=2))
            return
        print("files: " + ", ".join(f"{count} {kind}" for kind, count in passed_over.items()))
        print(f"{len(scans)} scans of {frame['patient_id'].nunique()} patients -> {self.out}")
        print_codes(codes, self.out.with_name("rejects.csv"))
        shared = [name for name, count in Counter(s.patient for s in scans if s.format == "nifti").items() if count > 1]
        if shared and self.table is None:
            print(
                f"note: {len(shared)} file names come more than once and so share a patient_id; "
                "if that's wrong, say whose they are with --table"
            )
        if root_needed:
            print(f"paths are relative to {root}: pass --root {root} to commands that read scans")


def print_codes(codes: Counter[RejectCode], table: Path) -> None:
    """Print how many were rejected for which reason, the commonest first."""
    if codes:
        print(f"{codes.total()} rejected -> {table}")
    for code, count in codes.most_common():
        print(f"  {count:>7}  {code.name:<20}{code.value}")


def without_twins(findings: Findings) -> list[Scan]:
    """Return the scans, only the first of those that are the same file twice."""
    scans = list({scan.scan_id: scan for scan in reversed(findings.scans)}.values())[::-1]
    findings.counts["identical copies of NIfTI files"] += len(findings.scans) - len(scans)
    return scans


def manifest_of(scans: Sequence[Scan], root: Path, key: bytes, site: str) -> pd.DataFrame:
    """Return the manifest of some scans.

    Args:
        scans: what was found.
        root: the folder that paths are to be relative to.
        key: the secret of the patients' and studies' hashes.
        site: the hospital.
    """
    rows = [
        {
            "scan_id": scan.scan_id,
            "path": os.path.relpath(scan.path, root),
            "format": scan.format,
            "patient_id": scan.patient if scan.slices else keyed_id("patient", scan.patient, key),
            "study_id": scan.study,
            "site": site,
            **scan.facts,
        }
        for scan in scans
    ]
    return with_types(pd.DataFrame(rows, columns=list(COLUMNS)), Path("the new manifest"))


COMMAND = Index

if __name__ == "__main__":
    sys.exit(main(COMMAND))
