"""The thresholds of a run: found once on its own validation scans, kept with the predictions that they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from fmct.console.errors import UsageError
from fmct.evaluation.operating_points import Thresholds, find_thresholds
from fmct.evaluation.predictions import read_predictions, write_predictions
from fmct.experiment.config import Config
from fmct.experiment.run_record import read_experiment

VALIDATION = "validation.parquet"
KEY = "fmct.validation"


class ValidationScans(Config):
    """Which scans a run was validated on, as its configuration says."""

    manifest: Path
    splits: tuple[str, ...] = Field(min_length=1)
    sites: tuple[str, ...]

    @classmethod
    def of(cls, run_folder: Path) -> ValidationScans:
        """Read a run's configuration.

        Raises:
            UsageError: when it names no validation scans.
        """
        data: dict[str, Any] = read_experiment(run_folder).get("data") or {}
        splits = tuple(data.get("val_splits", ("val",)))
        if not data.get("manifest") or not splits:
            raise UsageError(
                "the run names no validation scans", run_folder, "train with data.val_splits, or use --no-thresholds"
            )
        return cls(manifest=data["manifest"], splits=splits, sites=tuple(data.get("sites") or ()))


def validation_predictions(
    run_folder: Path, scans: ValidationScans, key: dict[str, str], predict: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """Return a run's predictions of its validation scans, from RUN/validation.parquet where they are still the same.

    Args:
        run_folder: the run.
        scans: its validation scans.
        key: checksums of what predictions depend on, as far as it is there; where a stored one differs, scans are
            predicted again.
        predict: does it.
    """
    path = run_folder / VALIDATION
    key = key | {"scans": scans.model_dump_json()}
    if path.is_file():
        stored = read_predictions(path)
        if stored.attrs.get(KEY, {}).items() >= key.items():
            return stored
    frame = predict()
    frame.attrs = {KEY: key}
    write_predictions(frame, path)
    return frame


def thresholds_on(
    validation: pd.DataFrame, scans: ValidationScans, patients: Sequence[str], labels: Sequence[str]
) -> Thresholds:
    """Find thresholds for labels, unless evaluated patients are among those of the validation scans.

    Args:
        validation: predictions of the validation scans.
        scans: which they are.
        patients: identifiers of the patients that are to be evaluated.
        labels: those that are evaluated.
    """
    shared = set(patients) & set(validation["patient_id"])
    rows = dict(tuple(validation.groupby("label")))
    reason = ""
    if shared:
        reason = (
            f"{len(shared)} of {len(set(patients))} evaluated patients are among the validation patients: thresholds "
            "found on them would flatter the result"
        )
    return without_thresholds(scans, reason, validation["scan_id"].nunique()).model_copy(
        update={"labels": {label: find_thresholds(rows[label]) for label in labels if label in rows and not reason}}
    )


def without_thresholds(scans: ValidationScans | None, reason: str, n_scans: int = 0) -> Thresholds:
    """Say that there are no thresholds, and why."""
    return Thresholds(
        manifest=str(scans.manifest) if scans else "",
        splits=scans.splits if scans else (),
        sites=scans.sites if scans else (),
        n_scans=n_scans,
        labels={},
        reason=reason,
    )
