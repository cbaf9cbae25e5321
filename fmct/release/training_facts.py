"""What weights learned from, in figures that name no patient, file or folder: training.json of a package."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field, ValidationError

from fmct.console.errors import UsageError
from fmct.console.files import sha256
from fmct.data.cached_rows import is_among
from fmct.data.datamodule import ScanDataModule
from fmct.data.feature_data import FeatureDataModule
from fmct.experiment.config import Config
from fmct.experiment.schema import Experiment
from fmct.models.package_files import TRAINING

UNNAMED = "unnamed"


class StartedFrom(Config):
    """The weights that a run began with."""

    name: str = Field(description="the experiment that made them")
    weights_sha256: str | None = Field(description="of their model.safetensors; null: they are gone")
    training: TrainingFacts | None = Field(description="null: it isn't known what they learned from")


class TrainingFacts(Config):
    """What training.json holds."""

    format: Literal[1] = 1
    scans: int
    patients: int
    by_site: dict[str, int] = Field(description="training scans of each site")
    by_scanner: dict[str, int] = Field(description="training scans of each manufacturer and model")
    cache: str | None = Field(description="name of the cache's folder, which is its settings' hash; null: features")
    defaced: bool | None = Field(description="whether faces were removed from the volumes; null: not known of features")
    manifest_sha256: str
    volumes_sha256: str | None = Field(description="of the training scans' checksums, in the order of their scan_id")
    configuration: dict[str, Any] = Field(description="of the run, without paths")
    started_from: StartedFrom | None = None

    @classmethod
    def of(cls, experiment: Experiment, data: ScanDataModule, started_from: StartedFrom | None = None) -> TrainingFacts:
        """Count what an experiment learns from.

        Args:
            experiment: what is run.
            data: its scans.
            started_from: the weights that it begins with, if any.
        """
        rows = data.train.frame
        cache = None if isinstance(data, FeatureDataModule) else data.cache
        volumes = None
        if cache is not None:
            index = cache.index
            checksums = index.loc[is_among(index.index, rows["scan_id"]), "checksum"].sort_index()
            volumes = hashlib.sha256("\n".join(checksums).encode()).hexdigest()
        return cls(
            scans=len(rows),
            patients=int(rows["patient_id"].nunique()),
            by_site=counted(rows["site"]),
            by_scanner=counted((rows["manufacturer"] + " " + rows["model"]).str.strip()),
            cache=cache.folder.name if cache else None,
            defaced=bool(getattr(cache.settings, "deface", False)) if cache else None,
            manifest_sha256=sha256(experiment.data.manifest),
            volumes_sha256=volumes,
            configuration=without_paths(experiment.model_dump()),
            started_from=started_from,
        )


def counted(values: pd.Series[str]) -> dict[str, int]:
    """Count each value, in alphabetical order."""
    counts = values.fillna("").replace("", UNNAMED).value_counts().sort_index()
    return {str(value): int(count) for value, count in counts.items()}


def without_paths(values: dict[str, Any]) -> dict[str, Any]:
    """Return plain values for JSON, without those that name a file or folder, which may name people or machines."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            kept[key] = without_paths(value)
        elif isinstance(value, (list, tuple)):
            if not any(isinstance(one, Path) for one in value):
                kept[key] = [without_paths(one) if isinstance(one, dict) else one for one in value]
        elif not isinstance(value, Path):
            kept[key] = value
    return kept


def read_facts(package: Path) -> TrainingFacts | None:
    """Read training.json of a package; None where there is none.

    Raises:
        UsageError: when it breaks its schema.
    """
    path = package / TRAINING
    if not path.is_file():
        return None
    try:
        return TrainingFacts.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{key}: {first['msg']}", path, "export the package again") from error
