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
    from collections.abc import Sequence

    import pandas as pd

    from fmct.data.dataset import ScanDataset
    from fmct.evaluation.operating_points import Thresholds
    from fmct.models.packaged import PackagedModel

SCAN_COLUMNS = (
    "split", "site", "manufacturer", "model", "kernel", "kvp", "spacing_z_mm", "gantry_tilt_deg", "age", "sex",
)  # fmt: skip


class Evaluate(Command):
    """Evaluate an adapted run on any manifest that shares some of its labels.

    Writes RUN/evaluations/NAME/predictions.parquet, from which every figure can be computed again, and metrics.json:
    AUROC and average precision, calibration, sensitivity and specificity at thresholds that were fixed on the run's own
    validation scans (kept in RUN/validation.parquet), and AUROC by subgroup, with confidence intervals by patient.

    Example: fmct evaluate runs/classify_cq500_finetune --data data_manifests/cq500.csv --split test
    """

    run_folder: CliPositionalArg[Path] = Field(description="folder of a finished classifier run")
    data: Path = Field(description="manifest with labels")
    cache: Path | None = Field(None, description="cache of its scans (default: the run's)")
    features: list[Path] = Field(
        [], description="for a run on features: tables of these scans' features (default: the run's data.features)"
    )
    only_with_features: bool = Field(False, description="leave out scans that --features lacks, and say how many")
    split: str = Field("test", description="splits to evaluate, separated by commas; `all` takes every row")
    sites: str = Field("", description="only these sites, separated by commas")
    name: str | None = Field(None, description="names the evaluation (default: from manifest, split and site)")
    batch_size: int = Field(8, gt=0, description="scans at a time; results don't depend on it")
    workers: int = Field(0, ge=0, description="loader processes")
    bootstrap: int = Field(2000, ge=100, description="bootstrap replicates, resampling patients")
    seed: int = Field(0, ge=0, description="of the bootstrap")
    thresholds: bool = Field(True, description="find thresholds on the run's validation scans")
    subgroups: bool = Field(True, description="compute AUROC by subgroup")
    subgroups_by: str = Field(
        "site,scanner,slice_mm,age,sex,kernel",
        description="what divides scans into subgroups: these, or any column of the manifest, separated by commas",
    )
    tensorboard: bool = Field(True, description="write curves of precision and recall to RUN/tb, too")
    json_output: bool = Field(False, alias="json", description="print metrics.json")

    def run(self) -> ExitCode:
        """Predict, write both files and print the tables."""
        from fmct.data.feature_data import FeatureDataset
        from fmct.evaluation.facts import EvaluatedData, Facts, with_facts
        from fmct.evaluation.predictions import write_predictions
        from fmct.evaluation.printed import printed
        from fmct.evaluation.summary import Metrics, summarize
        from fmct.models.packaged import load_package

        model = load_package(self.run_folder)
        dataset = self._dataset(model)
        by = self._subgroups(dataset)
        frame = predict(model, dataset, self.batch_size, self.workers, (*SCAN_COLUMNS, *by))
        lacking = {"scans_without_features": dataset.left_out} if isinstance(dataset, FeatureDataset) else {}
        facts = Facts(
            data=EvaluatedData(manifest=str(self.data), split=self.split, sites=tuple(self._sites), **lacking),
            thresholds=self._thresholds(model, frame) if self.thresholds else None,
            subgroups=by,
        )
        frame = with_facts(frame, facts)
        name = self.name or "-".join([self.data.stem, *names_in(self.split), *self._sites])
        folder = self.run_folder / "evaluations" / name
        write_predictions(frame, folder / "predictions.parquet")
        metrics = summarize(frame, bootstrap=self.bootstrap, seed=self.seed)
        write_text_atomically(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        if self.tensorboard:
            from fmct.evaluation.pr_curves import write_pr_curves

            write_pr_curves(frame, self.run_folder / "tb" / f"evaluation_{name}")
        if self.json_output:
            print(json.dumps(metrics, indent=2))
        else:
            print(printed(Metrics.model_validate(metrics)))
            print(f"\nwrote {folder}")
        return ExitCode.DONE

    def _subgroups(self, dataset: ScanDataset) -> tuple[str, ...]:
        from fmct.evaluation.grouping import check_columns

        by = names_in(self.subgroups_by) if self.subgroups else []
        check_columns(by, [str(name) for name in dataset.frame.columns], str(self.data))
        return tuple(dict.fromkeys(by))

    def _thresholds(self, model: PackagedModel, frame: pd.DataFrame) -> Thresholds:
        """Find thresholds on the run's validation scans, or say why there are none."""
        from fmct.console.files import sha256
        from fmct.evaluation.validation import (
            ValidationScans,
            thresholds_on,
            validation_predictions,
            without_thresholds,
        )
        from fmct.experiment.run_record import read_experiment
        from fmct.models.packaged import SUMS, package_folder

        scans = None
        try:
            scans = ValidationScans.of(self.run_folder)
            key = {"weights": sha256(package_folder(self.run_folder) / SUMS)}
            if scans.manifest.is_file():
                key["manifest"] = sha256(scans.manifest)
            own: dict[str, Any] = {"data": scans.manifest, "cache": None}
            own |= {"split": ",".join(scans.splits), "sites": ",".join(scans.sites), "features": []}
            own["only_with_features"] = read_experiment(self.run_folder)["data"].get("only_with_features", False)

            def predict_them() -> pd.DataFrame:
                dataset = self.model_copy(update=own)._dataset(model)
                return predict(model, dataset, self.batch_size, self.workers, called="validation scans")

            validation = validation_predictions(self.run_folder, scans, key, predict_them)
        except UsageError as error:
            return without_thresholds(scans, f"the run's validation scans can't be read: {error.what} ({error.where})")
        return thresholds_on(validation, scans, frame["patient_id"].tolist(), list(frame["label"].unique()))

    @property
    def _sites(self) -> list[str]:
        return names_in(self.sites)

    def _dataset(self, model: PackagedModel) -> ScanDataset:
        from fmct.data.cached_rows import cached_rows
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
        splits = [name.strip() for name in self.split.split(",")]
        chosen = frame if self.split == "all" else frame[frame["split"].isin(splits)]
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


def predict(
    model: PackagedModel,
    dataset: ScanDataset,
    batch_size: int,
    workers: int,
    columns: Sequence[str] = SCAN_COLUMNS,
    called: str = "scans",
) -> pd.DataFrame:
    """Predict every scan of a data set.

    Args:
        model: with a head.
        dataset: the scans.
        batch_size: scans at a time.
        workers: loader processes.
        columns: of the manifest, to go along where it has them.
        called: what the scans are, for the progress line.

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
    batches = track(scan_loader(dataset, batch_size, workers), f"evaluate {len(dataset)} {called}, batches")
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
        frames.append(pd.DataFrame(known | {name: scans[name] for name in columns if name in scans}))
    return pd.concat(frames, ignore_index=True)


COMMAND = Evaluate

if __name__ == "__main__":
    sys.exit(main(COMMAND))
