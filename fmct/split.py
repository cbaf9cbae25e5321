"""`fmct split`: assign patients to splits, and prove that splits are disjoint."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field, field_validator
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main, names_in
from fmct.console.errors import ExitCode, UsageError
from fmct.data.disjointness import Findings, check_disjoint, sizes, splits_of
from fmct.data.manifest import read_manifest, write_manifest
from fmct.data.manifest_checks import SPLITS, LeakError
from fmct.data.splits import assign_splits, hold_out_sites, studies_of_several
from fmct.data.volumes import VolumeCache

FLAGS_OF_CHECK = {"cache", "workers"}
FLAGS_OF_SPLIT = {"out", "fractions", "test_sites", "seed"}
LEAKS_SHOWN = 20


class Split(Command):
    """Assign patients to splits, alike in site and labels; with --check, prove that splits are disjoint.

    A patient is never divided, nor a study whose scans have several patient numbers. Scans that have a split keep it,
    and their patient's others join them.

    --check compares all splits of some manifests with each other: no patient, study, series or scan may be in two, and
    with --cache no near-duplicate volume (the same scan under another number). A manifest without any split counts as
    pretrain. Exit code 1 when something is in two splits.

    Example: fmct split labeled.csv --fractions pretrain=0.5,train=0.25,test=0.25 --out split.csv
    Example: fmct split --check archive.parquet cq500.csv --cache /scratch/cache --workers 16
    """

    manifests: CliPositionalArg[list[Path]] = Field(min_length=1, description="manifest to split; several with --check")
    out: Path | None = Field(None, description="manifest to write; not with --check")
    root: Path | None = Field(None, description="folder that paths are relative to; default the manifest's")
    fractions: str = Field("train=0.7,val=0.1,test=0.2", description="share, for each split, of patients without one")
    test_sites: str = Field("", description="sites held out as a whole, separated by commas: all their scans are test")
    seed: int = Field(0, ge=0, description="of the random order")
    check: bool = Field(False, description="write nothing; say what is in two splits")
    cache: list[Path] = Field([], description="check: folder of volumes, for near-duplicates; repeat for several")
    workers: int = Field(0, ge=0, description="check: processes that look at volumes; 0 and 1: this one")
    json_output: bool = Field(False, alias="json", description="print the outcome as JSON")

    @field_validator("fractions")
    @classmethod
    def _add_up(cls, text: str) -> str:
        parse_fractions(text)
        return text

    def run(self) -> ExitCode:
        """Split or check, and print the counts."""
        foreign = self.model_fields_set & (FLAGS_OF_SPLIT if self.check else FLAGS_OF_CHECK)
        if foreign:
            flag = f"--{sorted(foreign)[0].replace('_', '-')}"
            fix = "leave it out" if self.check else "add --check, or leave it out"
            means = f"{flag} means nothing {'with' if self.check else 'without'} --check"
            raise UsageError(means, "the command line of `fmct split`", fix)
        return self._check() if self.check else self._split()

    def _split(self) -> ExitCode:
        if self.out is None or len(self.manifests) > 1:
            what = (
                "--out is missing" if self.out is None else f"{len(self.manifests)} manifests can't be split together"
            )
            fix = "name the manifest to write" if self.out is None else "split each; `fmct split --check` compares them"
            raise UsageError(what, "the command line of `fmct split`", fix)
        manifest = read_manifest(self.manifests[0], self.root)
        frame = hold_out_sites(manifest, names_in(self.test_sites))
        frame = assign_splits(frame, parse_fractions(self.fractions), self.seed)
        write_manifest(frame, self.out)
        joined = studies_of_several(frame)
        counts = {str(split): sizes(rows) for split, rows in frame.groupby("split", sort=False)}
        if self.json_output:
            print(json.dumps({"manifest": str(self.out), "splits": counts, "studies_of_several_patients": len(joined)}))
            return ExitCode.DONE
        for split, count in counts.items():
            print(f"{split:<10}{count['scans']:>7} scans of {count['patients']} patients")
        if len(joined):
            print(
                f"note: {len(joined)} studies have scans of several patient numbers; the {int(joined.sum())} numbers "
                "were kept together. If a study's number is wrong, empty its study_id and split again"
            )
        print(f"wrote {self.out}")
        if self.out.resolve().parent != Path(manifest.attrs["root"]).resolve():
            print(f"paths are relative to {manifest.attrs['root']}: pass it as --root to commands that read scans")
        return ExitCode.DONE

    def _check(self) -> ExitCode:
        caches = [VolumeCache.open(path) for path in self.cache]
        try:
            frames, notes = splits_of([read_manifest(path, self.root) for path in self.manifests])
        except LeakError as leak:  # within one manifest: reading it says so already
            if self.json_output:
                print(json.dumps({"disjoint": False, "leak": leak.what, "where": leak.where}, indent=2))
            else:
                print(f"LEAK: {leak.what}\n  in {leak.where}\n  Fix: {leak.fix}")
            return ExitCode.FAILED
        findings = check_disjoint(frames, caches, self.workers)
        self._report(findings, notes)
        return ExitCode.DONE if findings.disjoint else ExitCode.FAILED

    def _report(self, findings: Findings, notes: Sequence[str]) -> None:
        if self.json_output:
            outcome: dict[str, Any] = {
                "disjoint": findings.disjoint,
                "proof": findings.sentence(),
                "notes": list(notes),
                "splits": findings.splits,
                "shared": findings.shared.to_dict("records"),
                "near_duplicates": findings.duplicates.to_dict("records"),
                "volumes_compared": findings.volumes,
                "volumes_missing": findings.missing,
                "volumes_without_head": findings.headless,
            }
            print(json.dumps(outcome, indent=2))
            return
        for note in notes:
            print(f"note: {note}")
        for split, count in findings.splits.items():
            print(f"{split:<10}{count['scans']:>8} scans of {count['patients']} patients")
        show("in two splits", findings.shared)
        show("near-duplicate volumes in two splits", findings.duplicates)
        print(findings.sentence())
        if not findings.disjoint:
            print("Fix: leave these scans, with their patients, out of one of the two splits, and check again")


def show(title: str, found: pd.DataFrame) -> None:
    """Print the first rows of what was found, and how many there are."""
    if found.empty:
        return
    print(
        f"{title}: {len(found)}" + (f", the first {LEAKS_SHOWN} (all with --json)" if len(found) > LEAKS_SHOWN else "")
    )
    for row in found.head(LEAKS_SHOWN).to_dict("records"):
        name = f"{row['kind']} {row['id']}" if "kind" in row else f"similarity {row['similarity']:.3f}"
        sides = [
            f"scan {row[f'scan_{side}']} in {row[f'split_{side}']} ({row[f'source_{side}']})" for side in ("a", "b")
        ]
        print(f"  {name}: {', '.join(sides)}")


def parse_fractions(text: str) -> dict[str, float]:
    """Read `train=0.7,test=0.3`.

    Raises:
        ValueError: on an unknown split, a share that is no number, or shares that don't add up to 1.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    fractions = {name.strip(): float(share) for name, _, share in pairs}
    known = [split for split in SPLITS if split]
    unknown = [name for name in fractions if name not in known]
    if unknown:
        raise ValueError(f"unknown split {unknown[0]}: use {', '.join(known)}")
    if abs(sum(fractions.values()) - 1) > 1e-6 or min(fractions.values()) < 0:
        raise ValueError(f"shares must not be negative and must add up to 1, not {sum(fractions.values()):g}")
    return fractions


COMMAND = Split

if __name__ == "__main__":
    sys.exit(main(COMMAND))
