"""`fmct bench`: how fast this machine does what fmct does, as ratios to a stated baseline in one run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main
from fmct.console.errors import ExitCode, UsageError


class Bench(Command):
    """Measure, in turns and against a baseline, so that the ratios hold on a noisy machine too.

    `index`: headers read per second on one core, by pydicom alone and by `fmct index`, first and second run; pixels
    aren't looked at. On synthetic series, or on a folder of your own.

    Example: fmct bench index --series 200
    """

    subject: CliPositionalArg[Literal["index"]] = Field(description="what to measure")
    series: int = Field(100, ge=1, description="index: how many synthetic series of 40 slices to write and read")
    source: Path | None = Field(None, description="index: a folder of DICOM files to read instead")
    turns: int = Field(3, ge=1, description="how often each way is timed; the median counts")
    json_output: bool = Field(False, alias="json", description="print the outcome as JSON")

    def run(self) -> ExitCode:
        """Measure and print a table."""
        from fmct.benchmarks.indexing import measure_indexing

        if self.source is not None and not self.source.is_dir():
            raise UsageError("there is no such folder", self.source, "name a folder of DICOM files")
        timings = measure_indexing(self.series, self.turns, self.source)
        base = timings[0]
        if self.json_output:
            rows = [
                {
                    "way": timing.name,
                    "median_s": timing.median_s,
                    "per_second": timing.per_second,
                    "ratio": timing.per_second / base.per_second,
                }
                for timing in timings
            ]
            print(json.dumps(rows, indent=2))
            return ExitCode.DONE
        print(f"{base.items:,} DICOM files, median of {self.turns}, one core, files in the page cache")
        print(f"{'':<44}{'files/s':>10}{'ratio':>8}")
        for timing in timings:
            print(f"{timing.name:<44}{timing.per_second:>10,.0f}{timing.per_second / base.per_second:>7.2f}x")
        return ExitCode.DONE


COMMAND = Bench

if __name__ == "__main__":
    sys.exit(main(COMMAND))
