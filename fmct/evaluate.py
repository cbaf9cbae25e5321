"""`fmct evaluate`: predictions.parquet and metrics.json of a run on a manifest."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main, names_in
from fmct.console.errors import ExitCode, UsageError
from fmct.console.files import write_text_atomically

if TYPE_CHECKING:
    import pandas as pd

    from fmct.data.dataset import ScanDataset
    from fmct.models.packaged import PackagedModel

SCAN_COLUMNS = (
    "split", "site", "manufacturer", "model", "kernel", "kvp", "spacing_z_mm", "gantry_tilt_deg", "age", "sex",
)  # fmt: skip


class Evaluate(Command):
    """Evaluate an adapted run on any manifest that shares some of its labels.

    Writes RUN/evaluations/NAME/predictions.parquet, from which every figure can be computed again, and metrics.json:
    AUROC and average precision with patient-bootstrap confidence intervals.

    Example: fmct evaluate runs/classify_cq500 --data data_manifests/cq500.csv --split test
    """

    run_folder: CliPositionalArg[Path] = Field(description="folder of a finished classifier run")
    data: Path = Field(description="manifest with labels")
    cache: Path | None = Field(None, description="cache of its scans (default: the run's)")
    features: list[Path] = Field(
        [], description="for a run on features: tables of these scans' features (default: the run's data.features)"
    )
    only_with_features: bool = Field(False, description="leave out scans that --features lacks, and say how many")
    split: str = Field("test", description="split to evaluate; `all` takes every row")
    sites: str = Field("", description="only these sites, separated by commas")
    name: str | None = Field(None, description="names the evaluation (default: from manifest, split and site)")
    batch_size: int = Field(8, gt=0, description="scans at a time; results don't depend on it")
    workers: int = Field(0, ge=0, description="loader processes")
    bootstrap: int = Field(2000, ge=100, description="bootstrap replicates, resampling patients")
    seed: int = Field(0, ge=0, description="of the bootstrap")
    json_output: bool = Field(False, alias="json", description="print metrics.json")

    def run(self) -> ExitCode:
        """Predict, write both files and print the table."""
        from fmct.data.feature_data import FeatureDataset
        from fmct.evaluation.predictions import write_predictions
        from fmct.evaluation.summary import summarize
        from fmct.models.packaged import load_package

        model = load_package(self.run_folder)
        dataset = self._dataset(model)
        frame = predict(model, dataset, self.batch_size, self.workers)
        name = self.name or "-".join([self.data.stem, self.split, *self._sites])
        folder = self.run_folder / "evaluations" / name
        write_predictions(frame, folder / "predictions.parquet")
        metrics = summarize(frame, bootstrap=self.bootstrap, seed=self.seed)
        metrics |= {"data": {"manifest": str(self.data), "split": self.split, "sites": self._sites}}
        metrics["data"] |= {"scans_without_features": dataset.left_out} if isinstance(dataset, FeatureDataset) else {}
        write_text_atomically(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        if self.json_output:
            print(json.dumps(metrics, indent=2))
        else:
            print(table(metrics))
            print(f"wrote {folder}")
        return ExitCode.DONE

    @property
    def _sites(self) -> list[str]:
        return names_in(self.sites)

    def _dataset(self, model: PackagedModel) -> ScanDataset:
        from fmct.data.datamodule import cached_rows
        from fmct.data.dataset import ScanDataset
        from fmct.data.feature_data import feature_dataset
        from fmct.data.manifest import label_names, read_manifest
        from fmct.data.presets import check_same_settings
        from fmct.data.volumes import VolumeCache
        from fmct.experiment.run_record import read_experiment
        from fmct.models.features import FeaturesConfig

        if not model.config.labels:
            raise UsageError(
                f"the run has no classification head (task {model.config.task})",
                self.run_folder,
                "adapt it first: a classifier experiment with task.weights naming this run",
            )
        frame = read_manifest(self.data)
        chosen = frame if self.split == "all" else frame[frame["split"] == self.split]
        chosen = chosen[chosen["site"].isin(self._sites)] if self._sites else chosen
        if chosen.empty:
            groups = frame["split"].replace("", "no split") + " of " + frame["site"].replace("", "no site")
            there = ", ".join(f"{count} {group}" for group, count in groups.value_counts().items())
            raise UsageError(f"no scan to evaluate; the manifest has {there}", self.data, "change --split or --sites")
        shared = [label for label in model.config.labels if label in label_names(frame)]
        if not shared:
            raise UsageError(
                f"the manifest has none of the run's labels ({', '.join(model.config.labels)})",
                self.data,
                "add them with `fmct label`",
            )
        config, trained_on = model.config.backbone, read_experiment(self.run_folder)["data"]
        if isinstance(config, FeaturesConfig):
            if self.cache:
                raise UsageError("the run takes features, not scans", "--cache", "give --features TABLE instead")
            tables = self.features or [Path(path) for path in trained_on["features"]]
            return feature_dataset(chosen, tables, config, shared, self.only_with_features)
        if self.features or self.only_with_features:
            raise UsageError("the run takes scans, not features", "--features", "give --cache DIR, or leave it out")
        cache = VolumeCache.open(self.cache or Path(trained_on["cache"]))
        fix = "preprocess the scans with the settings in the package's config.json"
        check_same_settings(model.preprocessing, cache.settings, cache.folder, fix)
        return ScanDataset(cached_rows(chosen, cache, self.data), cache, shared)


def predict(model: PackagedModel, dataset: ScanDataset, batch_size: int, workers: int) -> pd.DataFrame:
    """Predict every scan of a data set.

    Returns:
        One row per scan and label: scan_id, patient_id, label, target (NaN: unknown), probability, then what is known
        of the scan.

    Raises:
        FmctError: naming a scan that can't be read: a metric over fewer scans would be another metric.
    """
    import pandas as pd
    import torch

    from fmct.console.progress import track
    from fmct.data.loader import scan_loader

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device)
    batches = track(scan_loader(dataset, batch_size, workers), f"evaluate {len(dataset)} scans, batches")
    with torch.inference_mode():
        parts = [model.probabilities(batch["hu"].to(device)).cpu() for batch in batches]
    probabilities = torch.cat(parts).double().numpy()
    scans = dataset.frame
    frames = []
    for column, label in enumerate(dataset.labels):
        known = {
            "scan_id": scans["scan_id"],
            "patient_id": scans["patient_id"],
            "label": label,
            "target": dataset.targets[:, column].astype(float),
            "probability": probabilities[:, model.config.labels.index(label)],
        }
        frames.append(pd.DataFrame(known | {name: scans[name] for name in SCAN_COLUMNS if name in scans}))
    return pd.concat(frames, ignore_index=True)


def table(metrics: dict[str, Any]) -> str:
    """Lay the metrics out as text, an undefined one as n/a with its reason."""
    lines = [f"{'label':<20}{'n':>6}{'n+':>6}{'patients':>10}  {'AUROC (95 % CI)':<24}{'AP (95 % CI)':<24}"]
    for label, m in metrics["labels"].items():
        counts = f"{label:<20}{m['n_scans']:>6}{m['n_positive']:>6}{m['n_patients']:>10}  "
        if m["status"] != "ok":
            lines.append(f"{counts}n/a: {m['reason']}")
            continue
        cells = [interval(m[name], m[f"{name}_ci"]) for name in ("auroc", "ap")]
        lines.append(counts + "".join(f"{cell:<24}" for cell in cells).rstrip())
    return "\n".join(lines)


def interval(value: float, bounds: list[float] | None) -> str:
    """Write a value with its interval."""
    return f"{value:.3f} ({bounds[0]:.3f} to {bounds[1]:.3f})" if bounds else f"{value:.3f} (no interval)"


COMMAND = Evaluate

if __name__ == "__main__":
    sys.exit(main(COMMAND))
