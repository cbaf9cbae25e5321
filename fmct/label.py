"""`fmct label`: add label columns to a manifest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main, names_in
from fmct.console.errors import ExitCode
from fmct.data.labels.table import labels_of_table
from fmct.data.manifest import label_columns, read_manifest, write_manifest


class Label(Command):
    """Add label columns to a manifest: 1, 0, or empty where unknown.

    Source `csv` takes any table that shares an identifier with the manifest.

    Example: fmct label manifest.csv --source csv --table reads.csv --on scan_id --columns ICH,IPH --out labeled.csv
    """

    manifest: CliPositionalArg[Path] = Field(description="manifest to read")
    out: Path = Field(description="manifest to write")
    source: Literal["csv"] = Field("csv", description="where the labels come from")
    table: Path = Field(description="csv: table (.csv or .parquet) of the labels")
    on: str = Field("scan_id", description="csv: column that table and manifest share")
    columns: str = Field("", description="csv: label columns, separated by commas; default all named label:NAME")

    def run(self) -> ExitCode:
        """Join and print the prevalence of each label."""
        columns = names_in(self.columns)
        frame = labels_of_table(read_manifest(self.manifest), self.table, self.on, columns)
        write_manifest(frame, self.out)
        print(f"{'label':<24}{'positive':>9}{'negative':>9}{'unknown':>9}")
        for column in label_columns(frame):
            values = frame[column]
            print(f"{column:<24}{(values == 1).sum():>9}{(values == 0).sum():>9}{values.isna().sum():>9}")
        print(f"wrote {self.out}")
        return ExitCode.DONE


COMMAND = Label

if __name__ == "__main__":
    sys.exit(main(COMMAND))
