"""`fmct phantom`: synthetic head CTs with known findings, as DICOM series and NIfTI files."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field

from fmct.console.command import Command, main, names_in
from fmct.console.errors import ExitCode, UsageError
from fmct.console.files import write_text_atomically
from fmct.console.progress import track

Row = dict[str, object]


class Phantom(Command):
    """Write a cohort of synthetic head CTs whose findings are known by construction.

    Makes DIR/site_a/visit_1/..., one scanner per site, some patients scanned twice, and DIR/truth.csv with a row per
    scan: path, patient, site, scanner, seed, format, thickness, tilt, labels (1 or 0) and severities. Same arguments,
    same bytes, whatever --workers. Without --pixel-mm, --matrix and --slice-mm scans are as large as real ones (512 x
    512, 0.6 to 7 mm): seconds and tens of megabytes each.

    Labels: ICH, IPH, IVH, SDH, EDH, SAH, ChronicBleed, BleedLocation-Left, BleedLocation-Right, MassEffect,
    MidlineShift, Fracture, Tumor, Edema, Hydrocephalus and ADRD, named as `fmct label` names those of real scans. A
    quarter or more of each finding is subtle; old infarcts, calcification, slight shifts and grooves of vessels occur
    without any.

    Example: fmct phantom --n 60 --out cohort --pixel-mm 3 --slice-mm 3
    """

    n: int = Field(60, ge=1, description="number of scans")
    out: Path = Field(description="new or empty folder")
    sites: int = Field(3, ge=1, description="number of sites; each has a scanner and a case mix of its own")
    shares: str = Field(
        "", description="scans of the sites in proportion, separated by commas: 3,1,1 (default: as many of each)"
    )
    seed: int = Field(0, ge=0, description="other seed, other patients")
    format: Literal["mixed", "dicom", "nifti"] = Field("mixed", description="mixed alternates between both")
    slice_mm: float | None = Field(None, gt=0.3, le=10, description="slice thickness (default: the scanner's)")
    pixel_mm: float | None = Field(None, gt=0.2, le=6, description="pixel size (default: the scanner's)")
    matrix: int | None = Field(
        None, ge=32, le=1024, description="rows and columns (default: as the field of view needs)"
    )
    prevalence: float = Field(0.5, ge=0, le=1, description="share of patients with a bleed; sites differ by a tenth")
    findings: Literal["core", "all"] = Field(
        "all", description="which are dealt and labeled; core: ICH, IPH, SDH and MidlineShift alone"
    )
    hard_cases: bool = Field(False, description="add DIR/hard_cases: series that an indexer must reject")
    effects: bool = Field(False, description="finer anatomy, artifacts, other kernels and rests, missed coverage")
    masks: bool = Field(False, description="write a mask of each lesion: DIR/.masks/PATH OF THE SCAN/NAME.nii.gz")
    workers: int = Field(1, ge=1, description="processes")
    json_output: bool = Field(False, alias="json", description="print the outcome as JSON")

    def run(self) -> ExitCode:
        """Plan the cohort, make every scan, write the truth table, and only then give the folder its name."""
        from fmct.data.phantom.cohort import CohortConfig, truth_columns
        from fmct.data.phantom.hard_cases import write_hard_cases
        from fmct.data.phantom.making import made
        from fmct.data.phantom.scanner import SCANNERS, Overrides

        if self.sites > len(SCANNERS):
            raise UsageError(f"{self.sites} sites, but there are {len(SCANNERS)} scanners", "--sites", "choose fewer")
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UsageError(
                "the output exists already and isn't an empty folder", self.out, "remove it or choose another --out"
            )
        overrides = Overrides(slice_mm=self.slice_mm, pixel_mm=self.pixel_mm, matrix=self.matrix, effects=self.effects)
        config = CohortConfig(
            scans=self.n,
            sites=self.sites,
            shares=self._shares(),
            seed=self.seed,
            format=self.format,
            prevalence=self.prevalence,
            findings=self.findings,
            overrides=overrides,
        )
        unfinished = self.out.with_name(f".{self.out.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        plan = config.build()
        numbered = dict(track(made(plan, unfinished, self.workers, self.masks), "phantoms", total=len(plan)))
        columns = truth_columns(self.findings)
        rows = [{name: numbered[number][name] for name in columns} for number in range(len(plan))]
        if self.hard_cases:
            write_hard_cases(unfinished, self.seed, overrides)
        write_text_atomically(unfinished / "truth.csv", table(rows, columns))
        unfinished.replace(self.out)
        self._report(rows)
        return ExitCode.DONE

    def _shares(self) -> tuple[float, ...]:
        """Read the sites' shares.

        Raises:
            UsageError: when they aren't a positive number for each site.
        """
        try:
            shares = tuple(float(text) for text in names_in(self.shares))
        except ValueError:
            shares = (0.0,)
        if shares and (len(shares) != self.sites or not all(0 < share < math.inf for share in shares)):
            fix = f"give a positive number for each site: --shares {','.join('1' * self.sites)}"
            raise UsageError(f"{self.shares!r} aren't the shares of {self.sites} sites", "--shares", fix)
        return shares

    def _report(self, rows: list[Row]) -> None:
        """Print what was made."""
        from fmct.data.phantom.cohort import MASKS_FOLDER

        labels = [name for name in rows[0] if name.startswith("label:")]
        positive = {name.removeprefix("label:"): sum(row[name] == 1 for row in rows) for name in labels}
        patients = len({row["patient_id"] for row in rows})
        if self.json_output:
            outcome = {"out": str(self.out), "truth": str(self.out / "truth.csv"), "scans": len(rows)}
            outcome |= {"masks": str(self.out / MASKS_FOLDER)} if self.masks else {}
            print(json.dumps(outcome | {"patients": patients, "positive": positive}, indent=2))
            return
        found = ", ".join(f"{name} {count}" for name, count in positive.items())
        print(f"{len(rows)} scans of {patients} patients in {self.out}; scans with {found}")
        print(f"the truth about each: {self.out / 'truth.csv'}")
        if self.masks:
            print(f"masks of lesions, for `fmct predict --masks`: {self.out / MASKS_FOLDER}")


def table(rows: list[Row], columns: list[str]) -> str:
    """Return the rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


COMMAND = Phantom

if __name__ == "__main__":
    sys.exit(main(COMMAND))
