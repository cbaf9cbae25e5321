"""`fmct similar`: the scans most like one, by their embeddings."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, TypeAdapter
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main
from fmct.console.errors import ExitCode, UsageError, nearest, require_file
from fmct.console.files import write_bytes_atomically

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from fmct.data.feature_table import FeatureTable
    from fmct.data.volume_file import Voxels

SHOWN = ("patient_id", "site", "split", "age", "sex")
SAME_PATIENT = "same_patient"


@dataclass(frozen=True, eq=False)
class Query:
    """The scan that others are compared with.

    Attributes:
        names: its scan_ids, which are no neighbors.
        features: (D,) its embedding.
        voxels: its volume, where it was read from disk.
    """

    names: set[str]
    features: NDArray[np.float32]
    voxels: Voxels | None = None


class Similar(Command):
    """Find the scans most like one: cosine similarity of embeddings, the scan itself left out.

    SCAN is a scan_id of the table, or a DICOM folder or NIfTI file, which --weights embed: those that made the table.
    With --data the table shows what the manifest says of each scan, with its labels, and, where it has the scan itself,
    marks those of the same patient; --other-patients leaves them out. With --cache and --out three planes of each are
    drawn, the query first.

    Example: fmct similar scans/head.nii.gz --in embeddings.parquet --weights runs/pretrain_mae_smoke --k 5
    Example: fmct similar 3f1c90ab --in embeddings.parquet --data scans/manifest.csv --cache cache/ --out similar.png
    """

    scan: CliPositionalArg[str] = Field(description="scan_id in the table, DICOM folder or NIfTI file")
    table: Path = Field(alias="in", description="embeddings, as `fmct embed` writes them (.parquet)")
    weights: Path | None = Field(None, description="weight package or run that made them; needed for a scan on disk")
    k: int = Field(10, gt=0, description="how many scans")
    data: Path | None = Field(None, description="manifest of the scans in the table")
    other_patients: bool = Field(False, description="leave out scans of the same patient; needs --data")
    cache: Path | None = Field(None, description="cache of the scans in the table, for --out")
    out: Path | None = Field(None, description="picture to write (.png)")
    json_output: bool = Field(False, alias="json", description="print the outcome as JSON")

    def run(self) -> ExitCode:
        """Look up or embed the scan, rank the others, print and draw them."""
        from fmct.data.feature_table import read_features
        from fmct.evaluation.similarity import nearest_scans

        self._check()
        embedded = read_features([self.table])
        query = self._query(embedded)
        manifest = self._manifest()
        patients = self._patients(query, manifest)
        without = set(query.names)
        if manifest is not None and self.other_patients:
            if not patients:
                raise UsageError(
                    "the manifest doesn't say whose scan this is", f"{self.data}, scan {self.scan}", "index it first"
                )
            without |= set(manifest.index[manifest["patient_id"].isin(patients)])
        ranked = nearest_scans(query.features, embedded.scan_ids, embedded.values, self.k, without)
        rows = [self._row(scan_id, similarity, manifest, patients) for scan_id, similarity in ranked]
        if not rows:
            raise UsageError("there is no other scan to compare with", self.table, "embed more scans")
        if self.out is not None:
            self._draw(self.out, query, rows)
        if self.json_output:
            print(json.dumps({"scan": self.scan, "similar": rows}, indent=2))
        else:
            print(in_columns(rows))
            if self.out is not None:
                print(f"wrote {self.out}")
        return ExitCode.DONE

    def _check(self) -> None:
        where = "the command line of `fmct similar`"
        if (self.out is None) != (self.cache is None):
            raise UsageError("pictures need both --cache and --out", where, "give both, or none")
        if self.out is not None and self.out.suffix != ".png":
            raise UsageError("pictures are written as PNG", self.out, "give --out a name ending in .png")
        if self.other_patients and self.data is None:
            raise UsageError("--other-patients needs to know whose scans they are", where, "add --data MANIFEST")

    def _query(self, embedded: FeatureTable) -> Query:
        if self.scan in embedded.row_of:
            return Query({self.scan}, embedded.of(self.scan))
        if not Path(self.scan).exists():
            guess = nearest(self.scan, embedded.scan_ids)
            fix = f"did you mean {guess}?" if guess else "give a scan_id of the table, a DICOM folder or a NIfTI file"
            raise UsageError(f"{self.scan} is neither a scan of the table nor a file", self.table, fix)
        if self.weights is None:
            raise UsageError(
                "a scan on disk must be embedded first", self.scan, "add --weights: those that made the table"
            )
        from fmct.console.files import sha256
        from fmct.data.rules import parse_rules
        from fmct.data.scan_inputs import FoundScan, of_disk
        from fmct.models.packaged import SUMS, as_batch, load_package, package_folder
        from fmct.models.pooling import pooled_width
        from fmct.models.pooling_kinds import Pooling

        model = load_package(self.weights)
        pooling = TypeAdapter[Pooling](Pooling).validate_python(embedded.made.get("pooling", "cls"))
        width, there = pooled_width(model.backbone.width, pooling), embedded.values.shape[1]
        made_by_others = embedded.made.get("weights") not in {None, sha256(package_folder(self.weights) / SUMS)}
        if width != there or made_by_others:
            found = f"these weights give {width} features, the table has {there}"
            raise UsageError(
                found if width != there else "other weights made the table",
                self.weights,
                "name the weights that made the table, or make it anew with `fmct embed`",
            )
        read = list(of_disk([Path(self.scan)], model.preprocessing, parse_rules([], ())))
        scans = [one for one in read if isinstance(one, FoundScan)]
        if len(scans) != 1:
            reasons = "".join(f"; {one.where}: {one.what}" for one in read if not isinstance(one, FoundScan))
            raise UsageError(
                f"expected one scan, found {len(scans)}{reasons}", self.scan, "name one series' folder or file"
            )
        voxels = scans[0].volume.voxels
        return Query({scans[0].scan_id}, model.features(as_batch(voxels), pooling)[0].numpy(), voxels)

    def _manifest(self) -> pd.DataFrame | None:
        if self.data is None:
            return None
        from fmct.data.manifest import read_manifest

        return read_manifest(self.data).set_index("scan_id", drop=False)

    def _patients(self, query: Query, manifest: pd.DataFrame | None) -> set[str]:
        if manifest is None:
            return set()
        return set(manifest.loc[manifest.index.isin(query.names), "patient_id"])

    def _row(
        self, scan_id: str, similarity: float, manifest: pd.DataFrame | None, patients: set[str]
    ) -> dict[str, Any]:
        row: dict[str, Any] = {"scan_id": scan_id, "similarity": round(similarity, 6)}
        if manifest is None or scan_id not in manifest.index:
            return row
        from fmct.data.manifest import label_columns

        known = manifest.loc[scan_id]
        columns = [name for name in (*SHOWN, *label_columns(manifest)) if name in manifest]
        row |= {name: plain(known[name]) for name in columns}
        return row | ({SAME_PATIENT: known["patient_id"] in patients} if patients else {})

    def _draw(self, out: Path, query: Query, rows: list[dict[str, Any]]) -> None:
        from fmct.data.presets import require_hu
        from fmct.data.volumes import VolumeCache
        from fmct.evaluation.montage import montage

        assert self.cache is not None
        cache = VolumeCache.open(require_file(self.cache, "the cache", "make it with `fmct preprocess`"))
        require_hu(cache.settings, cache.folder)
        shown = {f"query: {self.scan}": cache.read(self.scan) if query.voxels is None else query.voxels}
        for number, row in enumerate(rows, 1):
            positive = [
                name.removeprefix("label:") for name, value in row.items() if name[:6] == "label:" and value == 1
            ]
            title = ", ".join([f"{number}: {row['scan_id']}", f"{row['similarity']:.4f}", *positive])
            shown[title + (", same patient" if row.get(SAME_PATIENT) else "")] = cache.read(row["scan_id"])
        write_bytes_atomically(out, montage(shown))


def plain(value: Any) -> Any:
    """Return a table's value as JSON has it: None where it is missing."""
    import pandas as pd

    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def in_columns(rows: list[dict[str, Any]]) -> str:
    """Lay rows out as a table, without columns in which nothing is known; what else isn't known is a dash."""
    import pandas as pd

    frame = pd.DataFrame(rows).rename(columns=lambda name: str(name).removeprefix("label:"))
    frame = frame.replace("", None).dropna(axis=1, how="all")
    if SAME_PATIENT in frame:
        frame[SAME_PATIENT] = frame[SAME_PATIENT].map({True: "yes", False: ""})
    frame["similarity"] = frame["similarity"].map("{:.4f}".format)
    return frame.astype(object).where(frame.notna(), "-").to_string(index=False)


COMMAND = Similar

if __name__ == "__main__":
    sys.exit(main(COMMAND))
