"""`fmct bench`: how fast this machine does what fmct does, as ratios to a stated baseline in one run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, check_flags, main
from fmct.console.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from fmct.benchmarks.table import Table

FLAGS_OF = {
    "index": {"series", "source", "turns"},
    "preprocess": {"source", "turns", "phantoms"},
    "cache": {"scans", "turns"},
    "views": {"scans", "turns"},
    "train": {"turns"},
    "scale": {"seconds_per_scan", "mb_per_scan", "rows"},
}


class Bench(Command):
    """Measure, in turns and against a baseline, so that the ratios hold on a noisy machine too.

    `index`: headers read per second on one core, by pydicom alone and by `fmct index`, first and second run; pixels
    aren't looked at. `preprocess`: processor time and memory from file to volume on phantoms of 5 and 1 mm and on
    --source, NIfTI against the published chain in MONAI, DICOM against bare decoding. `cache`: volumes read per second
    and their bytes, against the published form. `views`: crops made per second, against the published chain in MONAI,
    and how much of them shows a head. `train`: a step of self-distillation and of masked image modelling, ViT-B,
    against the published arithmetic, with FLOPs and memory; half an hour on two cores. `scale`: what grows with the
    archive, on a manifest and a cache of 361,663 made-up scans; --seconds-per-scan and --mb-per-scan, as the others
    measured them, give hours and terabytes.

    Example: fmct bench preprocess --turns 5
    """

    subject: CliPositionalArg[Literal["index", "preprocess", "cache", "views", "train", "scale"]] = Field(
        description="index, preprocess, cache, views, train or scale"
    )
    series: int = Field(100, ge=1, description="index: how many synthetic series of 40 slices to write and read")
    source: Path | None = Field(
        None,
        description="index: a folder of DICOM files to read instead; preprocess: scans, a file or a folder",
    )
    phantoms: bool = Field(True, description="preprocess: measure phantoms, not --source alone")
    scans: int = Field(6, ge=1, description="cache, views: how many synthetic heads to read")
    seconds_per_scan: float = Field(0.1, gt=0, description="scale: core-seconds that preprocessing takes")
    mb_per_scan: float = Field(1.0, gt=0, description="scale: megabytes of a cached volume")
    rows: int = Field(361_663, ge=100, description="scale: scans of the made-up archive")
    turns: int = Field(5, ge=1, description="all but scale: how often each way is timed; the median counts")
    json_output: bool = Field(False, alias="json", description="print the outcome as JSON")

    def run(self) -> ExitCode:
        """Measure and print."""
        check_flags(self, self.subject, FLAGS_OF)
        if self.source is not None and not self.source.exists():
            raise UsageError("there is no such file or folder", self.source, "name scans that are there")
        if self.subject == "scale":
            self._scale()
            return ExitCode.DONE
        if self.json_output:
            print(json.dumps([row for table in self._tables() for row in table.rows()], indent=2))
            return ExitCode.DONE
        for number, table in enumerate(self._tables()):
            print(("\n" if number else "") + table.text(), flush=True)
        return ExitCode.DONE

    def _tables(self) -> Iterable[Table]:
        from fmct.benchmarks.table import Table

        if self.subject == "index":
            from fmct.benchmarks.indexing import measure_indexing

            return [measure_indexing(self.series, self.turns, self.source)]
        if self.subject == "cache":
            from fmct.benchmarks.caching import measure_caching

            timings, sizes = measure_caching(self.scans, self.turns)
            return [Table(f"volumes of {self.scans} heads, one thread", "volumes", timings, sizes)]
        if self.subject == "views":
            from fmct.benchmarks.views import measure_views

            return measure_views(self.scans, self.turns)
        if self.subject == "train":
            from fmct.benchmarks.training import measure_training

            outcomes = (measure_training(objective, self.turns) for objective in ("dino", "mae"))
            return (Table(outcome.title, "scans", outcome.timings, outcome.notes()) for outcome in outcomes)
        from fmct.benchmarks.preprocessing import measure_preprocessing

        return [
            Table(
                case.name,
                "scans",
                case.timings,
                [f"peak memory, {way}: {mb:,.0f} MB" for way, mb in case.peak_mb.items()],
            )
            for case in measure_preprocessing(self.turns, self.source, self.phantoms)
        ]

    def _scale(self) -> None:
        from fmct.benchmarks.scale import PATIENTS, SCANS, measure_scale, table

        patients = max(self.rows * PATIENTS // SCANS, 1)
        figures, lines = measure_scale(self.seconds_per_scan, self.mb_per_scan * 1e6, self.rows, patients)
        if self.json_output:
            rows = [{"what": f.what.strip(), "value": f.value, "unit": f.unit, "goal": f.goal} for f in figures]
            print(json.dumps(rows, indent=2))
        else:
            print("\n".join([table(figures), *lines]))


COMMAND = Bench

if __name__ == "__main__":
    sys.exit(main(COMMAND))
