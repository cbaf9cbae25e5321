"""`fmct bench`: how fast this machine does what fmct does, as ratios to a stated baseline in one run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main
from fmct.console.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from fmct.benchmarks.table import Table


class Bench(Command):
    """Measure, in turns and against a baseline, so that the ratios hold on a noisy machine too.

    `index`: headers read per second on one core, by pydicom alone and by `fmct index`, first and second run; pixels
    aren't looked at. On synthetic series, or on a folder of your own.

    Example: fmct bench index --series 200
    """

    subject: CliPositionalArg[Literal["index"]] = Field(description="what to measure")
    series: int = Field(100, ge=1, description="index: how many synthetic series of 40 slices to write and read")
    source: Path | None = Field(None, description="index: a folder of DICOM files to read instead")
    turns: int = Field(5, ge=1, description="how often each way is timed; the median counts")
    json_output: bool = Field(False, alias="json", description="print the outcome as JSON")

    def run(self) -> ExitCode:
        """Measure and print tables."""
        if self.source is not None and not self.source.exists():
            raise UsageError("there is no such folder", self.source, "name a folder of scans")
        tables = self._tables()
        if self.json_output:
            print(json.dumps([row for table in tables for row in table.rows()], indent=2))
        else:
            print("\n\n".join(table.text() for table in tables))
        return ExitCode.DONE

    def _tables(self) -> list[Table]:
        from fmct.benchmarks.indexing import measure_indexing

        return [measure_indexing(self.series, self.turns, self.source)]


COMMAND = Bench

if __name__ == "__main__":
    sys.exit(main(COMMAND))
