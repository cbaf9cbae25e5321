"""`fmct split`: assign patients to train, val and test."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main, names_in
from fmct.console.errors import ExitCode
from fmct.data.manifest import read_manifest, write_manifest
from fmct.data.manifest_checks import SPLITS
from fmct.data.splits import assign_splits, hold_out_sites


class Split(Command):
    """Assign patients to splits, stratified by site and labels.

    A patient is never divided. Scans that have a split keep it.

    Example: fmct split labeled.csv --fractions pretrain=0.5,train=0.25,test=0.25 --out split.csv
    """

    manifest: CliPositionalArg[Path] = Field(description="manifest to read")
    out: Path = Field(description="manifest to write")
    fractions: str = Field(
        "train=0.7,val=0.1,test=0.2", description="share, for each split, of the patients that have none"
    )
    test_sites: str = Field("", description="sites held out as a whole, separated by commas: all their scans are test")
    seed: int = Field(0, ge=0, description="of the random order")

    @field_validator("fractions")
    @classmethod
    def _add_up(cls, text: str) -> str:
        parse_fractions(text)
        return text

    def run(self) -> ExitCode:
        """Split and print the counts."""
        held_out = names_in(self.test_sites)
        frame = hold_out_sites(read_manifest(self.manifest), held_out)
        frame = assign_splits(frame, parse_fractions(self.fractions), self.seed)
        write_manifest(frame, self.out)
        for split, rows in frame.groupby("split", sort=False):
            print(f"{split:<10}{len(rows):>7} scans of {rows['patient_id'].nunique()} patients")
        print(f"wrote {self.out}")
        return ExitCode.DONE


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
