"""Labels from diagnosis codes of the electronic health record, near the scan in time.

1: the patient has a code of the label's value set inside the window around the scan.
0: the patient is in the table, and never - at any time - has a code of the set or an ambiguous one.
Empty: the patient isn't in the table, the scan's date is unknown, codes of the set lie outside the window only, or
there are ambiguous ones (sequelae, history of, unspecified).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from fmct.console.errors import UsageError
from fmct.data.labels.columns import read_columns
from fmct.data.labels.dates import days
from fmct.data.labels.identifiers import as_in_manifest
from fmct.data.labels.source import SourceLabels
from fmct.data.labels.value_sets import ICD, ValueSet, classified, normalized
from fmct.data.manifest import LABEL_PREFIX
from fmct.experiment.config import Config


class DiagnosisColumns(Config):
    """What a diagnosis table calls its columns."""

    patient: str = Field("patient", description="PatientID as in DICOM headers, or the manifest's patient_id")
    code: str = Field("code", description="ICD-10-CM or ICD-9-CM, with or without dot")
    date: str = Field("date", description="of the diagnosis; blank where unknown")


class Window(Config):
    """Which days around the scan count, both ends among them."""

    before_days: int = Field(30, ge=0, description="days before the scan")
    after_days: int = Field(30, ge=0, description="days after the scan")


def read_diagnoses(
    manifest: pd.DataFrame, path: Path, columns: DiagnosisColumns, key: bytes | None
) -> tuple[pd.DataFrame, Counter[str]]:
    """Read the diagnoses of a manifest's patients; nobody else's are kept.

    Args:
        manifest: as `read_manifest` returns it.
        path: `.csv` or `.parquet`, one row per diagnosis.
        columns: what it calls its columns.
        key: the secret that patients in the clear are hashed with.

    Returns:
        `patient_id` (hashed), `code` (categorical, as written) and `day` (since 1970, NaN where unknown), without
        rows that have no code; and what was found.

    Raises:
        UsageError: on a missing column, a wrong date (naming its line, no value), no patient in common, or no ICD code.
    """
    table = read_columns(path, [columns.patient, columns.code, columns.date], identifiers=[columns.patient])
    known = set(manifest["patient_id"])
    patients = pc.utf8_trim_whitespace(table.column(columns.patient)).combine_chunks().dictionary_encode()
    names = patients.dictionary.to_pylist()
    hashes = as_in_manifest(names, known, "patient", key)
    is_known = np.array([hashes[name] in known for name in names], bool)
    if not is_known.any():
        raise UsageError(
            "no patient of the table is in the manifest",
            path,
            "pass the --key-file that `fmct index` used, and name the patients' column with --named patient=...",
        )
    codes = pc.utf8_trim_whitespace(table.column(columns.code)).combine_chunks().dictionary_encode()
    which = patients.indices.to_numpy(zero_copy_only=False)
    rows = pd.DataFrame(
        {
            "patient_id": pd.Categorical.from_codes(which, names),
            "code": pd.Categorical.from_codes(
                codes.indices.to_numpy(zero_copy_only=False), codes.dictionary.to_pylist()
            ),
            "day": days(table.column(columns.date).to_pandas(), columns.date, path),
        }
    )
    here = is_known[which]
    blank = (rows["code"] == "").to_numpy()
    icd = np.array([ICD.fullmatch(normalized(str(code))) is not None for code in rows["code"].cat.categories], bool)
    is_icd = icd[rows["code"].cat.codes.to_numpy()]
    if not is_icd[here].any():
        raise UsageError(
            f"{columns.code} has no ICD code", path, "name the column with --named code=..., as in I61.9, I619 or 431"
        )
    counts = Counter(
        {
            "diagnoses of patients who aren't in the manifest": int((~here).sum()),
            "diagnoses whose code isn't written like ICD-10 or ICD-9": int((here & ~blank & ~is_icd).sum()),
            "diagnoses without a code, passed over": int((here & blank).sum()),
            "diagnoses without a date, outside every window": int((here & ~blank & rows["day"].isna()).sum()),
        }
    )
    kept = rows[here & ~blank]
    return kept.assign(patient_id=kept["patient_id"].astype(str).map(hashes)), counts


def labels_of_diagnoses(
    manifest: pd.DataFrame,
    diagnoses: pd.DataFrame,
    dates: pd.Series[float],
    sets: Mapping[str, ValueSet],
    names: Sequence[str],
    window: Window,
) -> SourceLabels:
    """Match diagnoses to scans.

    Args:
        manifest: as `read_manifest` returns it.
        diagnoses: as `read_diagnoses` returns them.
        dates: the scans', days since 1970, indexed as the manifest; NaN where unknown.
        sets: the value sets.
        names: the labels to make.
        window: which days around the scan count.
    """
    in_table = manifest["patient_id"].isin(diagnoses["patient_id"]).to_numpy()
    dated = dates.notna().to_numpy()
    scans = pd.DataFrame(
        {"patient_id": manifest["patient_id"].to_numpy(), "scan_day": dates.to_numpy(), "row": np.arange(len(manifest))}
    )
    meanings = classified(sets, [str(code) for code in diagnoses["code"].cat.categories])
    counts: Counter[str] = Counter(
        {
            "scans whose patient isn't in the table": int((~in_table).sum()),
            "scans whose date is unknown": int((~dated).sum()),
        }
    )
    values: dict[str, Any] = {}
    for name in names:
        means, leaves_open = (mask[diagnoses["code"].cat.codes.to_numpy()] for mask in meanings[name])
        positive = near(scans, diagnoses[means], window)
        has_code = manifest["patient_id"].isin(diagnoses["patient_id"][means]).to_numpy()
        has_open = manifest["patient_id"].isin(diagnoses["patient_id"][leaves_open]).to_numpy()
        known = in_table & dated
        value = np.where(positive, 1.0, np.where(known & ~has_code & ~has_open, 0.0, np.nan))
        values[LABEL_PREFIX + name] = pd.Series(value, manifest.index).astype("Int8")
        counts["labels left empty because their codes lie outside the window"] += int(
            (known & has_code & ~positive).sum()
        )
        counts["labels left empty because of ambiguous codes"] += int((known & has_open & ~has_code).sum())
    return SourceLabels(pd.DataFrame(values, index=manifest.index), counts)


def near(scans: pd.DataFrame, diagnoses: pd.DataFrame, window: Window) -> NDArray[np.bool_]:
    """Tell which scans have one of some diagnoses inside the window."""
    pairs = scans.merge(diagnoses[["patient_id", "day"]].drop_duplicates(), on="patient_id")
    late = np.floor(pairs["day"]) - np.floor(pairs["scan_day"])
    inside = late.between(-window.before_days, window.after_days)
    result = np.zeros(len(scans), bool)
    result[pairs["row"][inside]] = True
    return result
