"""`fmct shortcuts`: how well embeddings tell site and scanner."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main, names_in
from fmct.console.errors import ExitCode, UsageError
from fmct.console.files import write_text_atomically

if TYPE_CHECKING:
    from fmct.evaluation.shortcuts import Shortcuts


class FindShortcuts(Command):
    """Predict site, manufacturer and model from embeddings, each scan by a model that never saw its patient.

    What embeddings tell about the scanner, a classifier can lean on instead of the disease. Balanced accuracy and AUROC
    stand beside what chance gives, with intervals by patient.

    Example: fmct shortcuts embeddings.parquet --data data_manifests/cq500.csv
    """

    embeddings: CliPositionalArg[Path] = Field(description="table of `fmct embed`: scan_id and features")
    data: Path = Field(description="manifest of these scans")
    by: str = Field(
        "site,manufacturer,model",
        description="what is to be predicted: columns, or scanner, slice_mm, age, separated by commas",
    )
    split: str = Field("all", description="only scans of these splits, separated by commas")
    folds: int = Field(5, ge=2, le=10, description="parts that the patients are divided into")
    bootstrap: int = Field(2000, ge=100, description="bootstrap replicates, resampling patients")
    seed: int = Field(0, ge=0, description="of the division and the bootstrap")
    out: Path | None = Field(None, description="file to write the outcome to (.json)")
    json_output: bool = Field(False, alias="json", description="print the outcome as JSON")

    def run(self) -> ExitCode:
        """Join embeddings and manifest, predict, and print the table."""
        import numpy as np

        from fmct.data.feature_table import read_features
        from fmct.data.manifest import read_manifest
        from fmct.evaluation.confidence import Bootstrap
        from fmct.evaluation.grouping import check_columns
        from fmct.evaluation.shortcuts import find_shortcuts

        features, scans = read_features([self.embeddings]).frame, read_manifest(self.data)
        by = names_in(self.by)
        check_columns(by, [str(name) for name in scans.columns], str(self.data))
        if self.split != "all":
            scans = scans[scans["split"].isin(names_in(self.split))]
        wanted, scans = len(scans), scans[scans["scan_id"].isin(features.index)]
        if scans.empty:
            raise UsageError(
                "no scan of the manifest is in the table of embeddings",
                self.embeddings,
                "embed the manifest's scans, or change --split",
            )
        settings = Bootstrap.of(self.bootstrap, self.seed, 0.95)
        matrix = features.loc[scans["scan_id"]].to_numpy(np.float64)
        found = find_shortcuts(scans, matrix, by, settings, self.folds)
        outcome = found.model_dump(mode="json")
        outcome |= {"embeddings": str(self.embeddings), "manifest": str(self.data), "split": self.split}
        outcome |= {"n_scans": len(scans), "n_scans_not_embedded": wanted - len(scans)}
        text = json.dumps(outcome, indent=2) + "\n"
        if self.out is not None:
            write_text_atomically(self.out, text)
        print(text if self.json_output else table(found, len(scans), wanted), end="" if self.json_output else "\n")
        if self.out is not None and not self.json_output:
            print(f"wrote {self.out}")
        return ExitCode.DONE


def table(found: Shortcuts, scans: int, wanted: int) -> str:
    """Lay the outcome out as text, at most 100 columns wide."""
    from fmct.evaluation.confidence import FEW_PATIENTS
    from fmct.evaluation.printed import cell, number, row, wrapped

    head = [("factor", 14), ("by", 21), ("classes", -8), ("", 2), ("balanced accuracy (CI)", 24), ("chance", -6)]
    lines = [
        f"from {found.n_features} features of {scans} of {wanted} scans, fitted without the patient in question",
        row([*head, ("", 2), ("AUROC (CI)", 23)]),
    ]
    for one in found.results:
        cells = [(one.factor[:13], 14), (one.method, 21), (str(len(one.classes)), -8), ("", 2)]
        if one.status == "ok":
            cells += [(cell(one.balanced_accuracy, one.balanced_accuracy_ci), 24)]
            cells += [(number(one.balanced_accuracy_chance), -6), ("", 2), (cell(one.auroc, one.auroc_ci), 23)]
        else:
            cells += [(f"n/a: {one.reason}", 55)]
        lines.append(row(cells))
    told = [f"{one.factor} by {one.method}" for one in found.results if one.verdict == "told apart"]
    small = sorted({f"{name} ({size})" for one in found.results for name, size in one.left_out.items()})
    lines += wrapped(f"above chance: {', '.join(told)}" if told else "nothing is shown to be above chance")
    if small:
        lines += wrapped(f"left out, with fewer than {FEW_PATIENTS} patients: {', '.join(small)}")
    return "\n".join(lines)


COMMAND = FindShortcuts

if __name__ == "__main__":
    sys.exit(main(COMMAND))
