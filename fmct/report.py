"""`fmct report`: compare runs in one HTML file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main
from fmct.console.errors import ExitCode, UsageError
from fmct.console.files import write_text_atomically


class Report(Command):
    """Compare runs in one self-contained HTML file: results with intervals, curves, training, scans, provenance.

    Differences are taken from classifiers trained from scratch (task.weights null), by resampling the same patients.

    Example: fmct report runs/scratch runs/finetune_mae runs/pretrain_mae --out report.html
    """

    runs: CliPositionalArg[list[Path]] = Field(
        description="folders of runs, pretraining and classifiers in any order, of few-shot studies and of sweeps"
    )
    out: Path = Field(Path("report.html"), description="the page to write")
    title: str = Field("Head-CT model report", description="heading of the page")
    scans: int = Field(6, ge=0, le=60, description="scans of each cache to show")
    embeddings: list[Path] = Field([], description="tables of `fmct embed` to look at")
    maps: list[Path] = Field([], description="folders that `fmct predict --maps` wrote, to show")
    bootstrap: int = Field(2000, ge=100, description="bootstrap replicates for differences between runs")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")
    json_output: bool = Field(False, alias="json", description="print the numbers of the page as JSON")

    def run(self) -> ExitCode:
        """Write the page, and print where it is or its numbers."""
        from fmct.evaluation.confidence import Bootstrap
        from fmct.evaluation.page import make_report
        from fmct.evaluation.page_sections import Beside
        from fmct.evaluation.studies import divide

        if self.out.is_dir():
            raise UsageError("the page's path is a folder", self.out, f"use --out {self.out / 'report.html'}")
        settings = Bootstrap(replicates=self.bootstrap, seed=self.seed)
        runs, studies = divide(self.runs)
        beside = Beside(self.embeddings, self.maps, studies)
        report = make_report(runs, self.title, settings, self.scans, beside)
        write_text_atomically(self.out, report.html)
        if self.json_output:
            print(json.dumps(report.numbers, indent=2, allow_nan=False))
        else:
            print(f"wrote {self.out} ({len(report.html.encode()) / 1e6:.1f} MB)")
        return ExitCode.DONE


COMMAND = Report

if __name__ == "__main__":
    sys.exit(main(COMMAND))
