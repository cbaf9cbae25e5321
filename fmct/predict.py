"""`fmct predict`: probabilities of new scans, and maps of what they rest on."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from fmct.console.command import main, names_in
from fmct.console.errors import ExitCode, FmctError, UsageError, require_file
from fmct.console.files import atomic_path, file_name, write_text_atomically
from fmct.data.scan_inputs import FoundScan, ScanInputs, nothing_read
from fmct.evaluation.map_kinds import parse_kinds

if TYPE_CHECKING:
    from fmct.evaluation.explanations import Explainer, ExplanationMap
    from fmct.evaluation.hit_rate import Hit
    from fmct.models.packaged import PackagedModel

RESEARCH_USE = "For research only: no diagnosis may rest on this."


@dataclass
class Outcome:
    """What came of all scans.

    Attributes:
        rows: one per scan and label: scan_id, path, label, probability.
        maps: how many files of maps were written.
        hits: how well maps point at lesions.
        failures: the scans that couldn't be read.
        scans: how many could.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    maps: int = 0
    hits: list[Hit] = field(default_factory=list)
    failures: list[FmctError] = field(default_factory=list)
    scans: int = 0


class Predict(ScanInputs):
    """Classify scans with adapted weights, and show where a model looks. For research only, no diagnosis.

    Writes OUT/probabilities.csv (scan_id, path, label, probability) and, with --maps, OUT/maps/SCAN_ID/MAP.nii.gz with
    the true affine and MAP.png. Maps of vision transformers: rollout (attention through all blocks), heads (of the last
    block), relevance (what counts for a label), pca (patches colored alike are alike); of ResNets: layercam; of all:
    occlusion (how far a label's logit falls when a place is made plain; slow, and right where a head compares both
    sides). rollout, heads and pca need no labels. With --masks, OUT/hit_rate.json says how much of a map's top 5 % lies
    in lesions, against chance. What can't be read is listed, and the exit code is 3.

    Example: fmct predict scans/ --weights runs/classify_cq500 --out predictions --maps relevance,rollout
    """

    weights: Path = Field(description="weight package, or a finished run")
    out: Path = Field(description="folder to write; files of the same names there are replaced")
    maps: str = Field(
        "", description="maps to write, separated by commas: rollout,heads,relevance,pca,layercam,occlusion"
    )
    labels: str = Field("", description="of these labels only, separated by commas (default: all of the weights)")
    grid: Literal["scan", "volume"] = Field(
        "scan", description="voxels of maps: the scan's own where an affine can say them, or the preprocessed volume's"
    )
    masks: Path | None = Field(None, description="folder of lesions' masks, as `fmct phantom --masks` writes them")
    table: Literal["csv", "parquet"] = Field("csv", description="format of the table of probabilities")
    json_output: bool = Field(False, alias="json", description="print the outcome as JSON")

    def run(self) -> ExitCode:
        """Predict, write and say what came of it."""
        import torch

        from fmct.console.progress import track
        from fmct.evaluation.explanations import Explainer
        from fmct.models.packaged import load_package

        self.require_inputs()
        if self.masks is not None:
            require_file(self.masks, "the folder of masks", "name what `fmct phantom --masks` wrote")
            if not self.maps:
                raise UsageError(
                    "masks are compared with maps, and none is asked for", "--masks", "add --maps relevance"
                )
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = load_package(self.weights).to(device)
        if model.head is None and not self.maps:
            raise UsageError(
                f"these weights have no classification head (task {model.config.task})",
                self.weights,
                "adapt them with a classifier experiment, or ask for maps that need no head: --maps rollout",
            )
        labels = names_in(self.labels) or list(model.config.labels)
        explainer = Explainer(model, parse_kinds(names_in(self.maps)), labels)
        outcome = Outcome()
        for scan in track(self.scans(model.preprocessing), "predict"):
            if isinstance(scan, FmctError):
                outcome.failures.append(scan)
            else:
                self._predict(scan, model, explainer, outcome)
        return self._finish(outcome)

    def _predict(self, scan: FoundScan, model: PackagedModel, explainer: Explainer, outcome: Outcome) -> None:
        import torch

        from fmct.evaluation.map_files import write_maps
        from fmct.models.packaged import as_batch

        outcome.scans += 1
        if model.head is not None:
            device = next(model.parameters()).device
            with torch.inference_mode():
                probabilities = model.probabilities(as_batch(scan.volume.voxels).to(device))[0].double().tolist()
            known = dict(zip(model.config.labels, probabilities, strict=True))
            about = {"scan_id": scan.scan_id, "path": scan.path}
            outcome.rows += [about | {"label": label, "probability": known[label]} for label in explainer.labels]
        if explainer.kinds:
            maps = explainer.maps(scan.volume)
            folder = self.out / "maps" / file_name(scan.scan_id)
            outcome.maps += len(write_maps(folder, scan, maps, own_grid=self.grid == "scan"))
            if self.masks is not None:
                outcome.hits += hits_of(scan, maps, model, self.masks)

    def _finish(self, outcome: Outcome) -> ExitCode:
        import pandas as pd

        from fmct.evaluation.hit_rate import summarize_hits

        for failure in outcome.failures:
            print(f"not predicted: {failure.where}: {failure.what}", file=sys.stderr)
        if not outcome.scans:
            raise nothing_read(self.inputs, "predicted")
        said: dict[str, Any] = {"scans": outcome.scans, "research_use": RESEARCH_USE, "maps": outcome.maps}
        if outcome.rows:
            path = self.out / f"probabilities.{self.table}"
            frame = pd.DataFrame(outcome.rows)
            with atomic_path(path) as temporary:
                frame.to_csv(temporary, index=False) if self.table == "csv" else frame.to_parquet(
                    temporary, index=False
                )
            said |= {"table": str(path), "probabilities": outcome.rows}
        if self.masks is not None:
            if not outcome.hits:
                fix = "masks are found by the scan's path: MASKS/PATH/NAME.nii.gz; give a manifest with paths"
                raise UsageError("no scan has a mask of a lesion here", self.masks, fix)
            summary = summarize_hits(outcome.hits)
            said["hit_rates"] = summary
            written = {"hit_rates": summary, "scans": [asdict(hit) for hit in outcome.hits]}
            write_text_atomically(self.out / "hit_rate.json", json.dumps(written, indent=2) + "\n")
        said["failures"] = [{"where": failure.where, "what": failure.what} for failure in outcome.failures]
        print(json.dumps(said, indent=2) if self.json_output else in_words(said, self.out))
        return ExitCode.SOME_REJECTED if outcome.failures else ExitCode.DONE


def hits_of(scan: FoundScan, maps: list[ExplanationMap], model: PackagedModel, masks: Path) -> list[Hit]:
    """Compare a scan's maps with its lesions: those of a label with the lesion of that name, the others with all."""
    from fmct.data.lesion_masks import mask_on, masks_of
    from fmct.evaluation.explanations import head_mask, network_grid
    from fmct.evaluation.hit_rate import Hit, hit_rate
    from fmct.evaluation.map_geometry import onto

    grid = network_grid(model, scan.volume)
    head = head_mask(model, scan.volume)
    found = []
    for lesion, path in masks_of(masks, scan.path).items():
        marked = mask_on(path, grid)
        for one in maps if marked.any() else ():
            if one.values.ndim == 3 and one.label in {"", lesion}:
                values = onto(one.values, one.affine, grid)
                rates = hit_rate(values, marked, head, one.lattice.step_zyx)
                found.append(Hit(scan.scan_id, scan.patient_id or scan.scan_id, one.name, lesion, *rates))
    return found


def in_words(said: dict[str, Any], out: Path) -> str:
    """Return the outcome for people to read."""
    lines = []
    if "table" in said:
        lines.append(f"wrote {len(said['probabilities'])} probabilities of {said['scans']} scans to {said['table']}")
    if said["maps"]:
        lines.append(f"wrote {said['maps']} maps of {said['scans']} scans to {out / 'maps'}, each as NIfTI and picture")
    for one in said.get("hit_rates", []):
        bounds = one["ratio_ci"]
        interval = f"95 % CI {bounds[0]:.2f} to {bounds[1]:.2f}" if bounds else one["note"]
        lines.append(
            f"{one['map']} on {one['lesion']}: {one['hit_rate']:.1%} of the top 5 % lie in the lesion, "
            f"{one['ratio']:.2f} times chance ({interval}; {one['n_scans']} scans)"
        )
    return "\n".join([*lines, RESEARCH_USE])


COMMAND = Predict

if __name__ == "__main__":
    sys.exit(main(COMMAND))
