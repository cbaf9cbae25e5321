"""`fmct label`: add label columns to a manifest."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main, names_in
from fmct.console.errors import ExitCode, UsageError, nearest, require_file
from fmct.console.progress import track
from fmct.data.labels.cq500 import Vote, labels_of_cq500
from fmct.data.labels.dates import dates_of_headers, dates_of_table
from fmct.data.labels.ehr import DiagnosisColumns, Window, labels_of_diagnoses, read_diagnoses
from fmct.data.labels.identifiers import joining_key
from fmct.data.labels.prevalence import prevalence, prevalence_table
from fmct.data.labels.rsna2019 import labels_of_rsna2019, read_slice_labels
from fmct.data.labels.source import SourceLabels, add_labels
from fmct.data.labels.table import labels_of_table
from fmct.data.labels.value_sets import SHIPPED, chosen, read_value_sets
from fmct.data.manifest import read_manifest, scan_path, write_manifest
from fmct.data.series import slice_headers

Source = Literal["csv", "cq500", "rsna2019", "ehr"]
FLAGS_OF = {
    "csv": {"on", "key_file"},
    "cq500": {"vote", "key_file"},
    "rsna2019": {"workers"},
    "ehr": {"workers", "key_file", "named", "value_sets", "before_days", "after_days", "dates"},
}


class Label(Command):
    """Add label columns to a manifest: 1, 0, or empty where unknown.

    csv: any table that shares an identifier with the manifest; columns `label:NAME` (1, 0, empty), `soft:NAME` (0..1).
    cq500: its reads.csv, by PatientID and path. Three readers vote (blanks aside; fewer than two reads: unknown).
    rsna2019: stage_2_train.csv; a series has the greatest label of its slices, which are found by their headers.
    ehr: diagnoses (patient, code, date) near the scan. 1: a code of the label's value set inside the window. 0: the
    patient is in the table and never, at any time, has such a code or an ambiguous one (sequelae, history of,
    unspecified). Else empty: also where the patient or the scan's date is unknown.

    Labels that the manifest has already stay where the source says nothing. Scans without a label are kept.

    Example: fmct label index.csv --source cq500 --table reads.csv --key-file my.key --out labeled.csv
    """

    manifest: CliPositionalArg[Path] = Field(description="manifest to read")
    out: Path = Field(description="manifest to write")
    source: Source = Field("csv", description="where the labels come from")
    table: Path = Field(description="the source's table; .csv or .parquet")
    columns: str = Field(
        "", description="labels to take, separated by commas; default: all (csv: all named label:NAME)"
    )
    overwrite: bool = Field(False, description="take the source's label where the manifest has another")
    on: str = Field("scan_id", description="csv: column that table and manifest share")
    vote: Vote = Field(
        "majority", description="cq500: 1 if so many mark it; mean: majority, and their share as soft:NAME"
    )
    key_file: Path | None = Field(None, description="csv, cq500, ehr: key that `fmct index` hashed patients with")
    root: Path | None = Field(None, description="folder that paths are relative to; default the manifest's")
    workers: int = Field(0, ge=0, description="rsna2019, ehr: processes that read headers")
    named: str = Field("", description="ehr: the table's names, as in patient=MRN,code=DX,date=DAY")
    value_sets: Path | None = Field(None, description="ehr: YAML of each label's codes; default: ten, shipped")
    before_days: int = Field(30, ge=0, description="ehr: the window begins so long before the scan")
    after_days: int = Field(30, ge=0, description="ehr: and ends so long after it")
    dates: Path | None = Field(
        None, description="ehr: table of `date` by `path`, `scan_id` or `study`; default: the scans' headers"
    )
    json_output: bool = Field(False, alias="json", description="print the outcome as JSON")

    def run(self) -> ExitCode:
        """Look up the labels, join them and print the prevalence of each."""
        self._refuse_foreign_flags()
        manifest = read_manifest(self.manifest, self.root)
        labels = getattr(self, f"_{self.source}")(manifest)
        frame = add_labels(manifest, labels, self.overwrite)
        write_manifest(frame, self.out)
        self._report(frame, labels)
        return ExitCode.DONE

    def _names(self) -> list[str]:
        return list(dict.fromkeys(names_in(self.columns)))

    def _refuse_foreign_flags(self) -> None:
        for name in sorted(self.model_fields_set & set().union(*FLAGS_OF.values())):
            if name not in FLAGS_OF[self.source]:
                owners = " and ".join(source for source in get_args(Source) if name in FLAGS_OF[source])
                raise UsageError(
                    f"--{name.replace('_', '-')} means nothing to --source {self.source}; it is of {owners}",
                    "the command line of `fmct label`",
                    "leave it out, or choose another --source",
                )

    def _csv(self, manifest: pd.DataFrame) -> SourceLabels:
        return labels_of_table(manifest, self.table, self.on, self._names(), joining_key(self.key_file))

    def _cq500(self, manifest: pd.DataFrame) -> SourceLabels:
        return labels_of_cq500(manifest, self.table, self.vote, self._names(), joining_key(self.key_file))

    def _rsna2019(self, manifest: pd.DataFrame) -> SourceLabels:
        slices = read_slice_labels(self.table)
        root = Path(manifest.attrs["root"])
        rows = manifest[manifest["format"] == "dicom"].drop_duplicates("path").to_dict("records")
        paths = [path for path in (scan_path(row, root) for row in rows) if path.exists()]
        if not paths:
            raise UsageError(
                "none of the manifest's DICOM scans is there", root, "pass the folder of the scans as --root"
            )
        headers = track(slice_headers(paths, self.workers), "read headers")
        return labels_of_rsna2019(manifest, slices, headers, self._names())

    def _ehr(self, manifest: pd.DataFrame) -> SourceLabels:
        source = self.value_sets or SHIPPED
        sets = read_value_sets(source)
        names = chosen(sets, self._names(), source)
        key = joining_key(self.key_file)
        diagnoses, counts = read_diagnoses(manifest, self.table, diagnosis_columns(self.named), key)
        if self.dates is not None:
            dates = dates_of_table(manifest, require_file(self.dates, "the table of dates", "check --dates"), key)
        else:
            dates = dates_of_headers(manifest, Path(manifest.attrs["root"]), self.workers)
        if dates.isna().all():
            raise UsageError(
                "no scan's date is known: no header has one",
                manifest.attrs["root"],
                "pass a table as --dates, with `date` and `path`, `scan_id` or `study`",
            )
        window = Window(before_days=self.before_days, after_days=self.after_days)
        labels = labels_of_diagnoses(manifest, diagnoses, dates, sets, names, window)
        labels.counts.update(counts)
        return labels

    def _report(self, frame: pd.DataFrame, labels: SourceLabels) -> None:
        labeled = int(labels.labeled().sum())
        found = prevalence(frame)
        if self.json_output:
            outcome: dict[str, Any] = {
                "manifest": str(self.out),
                "source": self.source,
                "scans": len(frame),
                "patients": int(frame["patient_id"].nunique()),
                "scans_labeled": labeled,
                "scans_without_label": len(frame) - labeled,
                "counts": dict(labels.counts),
                "labels": found,
            }
            print(json.dumps(outcome, indent=2))
            return
        print(prevalence_table(found))
        print(f"{labeled} of {len(frame)} scans got a label from {self.table.name}; {len(frame) - labeled} got none")
        for what, count in labels.counts.items():
            if count:
                print(f"  {count:>8}  {what}")
        print(f"wrote {self.out}")
        if self.out.resolve().parent != Path(frame.attrs["root"]).resolve():
            print(f"paths are relative to {frame.attrs['root']}: pass it as --root to commands that read scans")


def diagnosis_columns(text: str) -> DiagnosisColumns:
    """Read `patient=MRN,code=DX,date=DAY`; what isn't named keeps its name.

    Raises:
        UsageError: on a part that isn't NAME=COLUMN, an unknown name, or a column for two of them.
    """
    pairs = [part.partition("=")[::2] for part in names_in(text)]
    known = list(DiagnosisColumns.model_fields)
    for name, column in pairs:
        if name.strip() not in known or not column.strip():
            guess = nearest(name, known)
            fix = f"did you mean {guess}?" if guess and guess != name else "write it as in patient=MRN,code=DX,date=DAY"
            raise UsageError(f"--named can't be read at {name!r}", "the command line of `fmct label`", fix)
    columns = DiagnosisColumns(**{name.strip(): column.strip() for name, column in pairs})
    if len(set(columns.model_dump().values())) < len(known):
        raise UsageError("patient, code and date must be three columns", "--named", "name each one's own")
    return columns


COMMAND = Label

if __name__ == "__main__":
    sys.exit(main(COMMAND))
