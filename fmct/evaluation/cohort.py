"""What the data of a report consist of: scans, patients, sites, splits, prevalence, and what was rejected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fmct.console.errors import UsageError
from fmct.console.files import sha256
from fmct.data.manifest import label_columns, read_manifest
from fmct.data.reject_files import rejects_of
from fmct.data.rejection import RejectCode
from fmct.evaluation.run_folder import Run


def manifests_of(runs: Sequence[Run]) -> dict[str, list[int]]:
    """Return the manifests that runs were trained on, each with the places of those runs."""
    used: dict[str, list[int]] = {}
    for place, run in enumerate(runs):
        if run.data.get("manifest"):
            used.setdefault(str(run.data["manifest"]), []).append(place)
    return used


def manifest_summary(path: Path, caches: Iterable[Path]) -> dict[str, Any]:
    """Count what a manifest holds.

    Args:
        path: the manifest.
        caches: the caches made from it; their rejects.csv are counted too.

    Returns:
        `absent` (why it couldn't be read, or empty), sha256 of the file, scans, patients, `groups` (one row per site
        and split), `labels` (known, positive and prevalence per label), `reject_files` (how many rejects.csv there are)
        and `rejects` (per file and code: count and meaning).
    """
    of_manifest = rejects_of(path)
    of_caches = (file for cache in caches for file in rejects_in(cache) if file.is_file())
    files = list(dict.fromkeys([*([of_manifest] if of_manifest else []), *of_caches]))
    rejects = reject_counts(files)
    empty = {"sha256": "", "scans": 0, "patients": 0, "groups": [], "labels": [], "reject_files": len(files)}
    try:
        frame = read_manifest(path)
    except UsageError as error:
        return {"path": str(path), "absent": error.what, **empty, "rejects": rejects}
    groups = frame.groupby(["site", "split"], sort=True)
    return {
        "path": str(path),
        "absent": "",
        "sha256": sha256(path),
        "scans": len(frame),
        "patients": int(frame["patient_id"].nunique()),
        "groups": [
            {"site": site, "split": split, "scans": len(rows), "patients": int(rows["patient_id"].nunique())}
            for (site, split), rows in groups
        ],
        "labels": [label_counts(frame, column) for column in label_columns(frame)],
        "reject_files": len(files),
        "rejects": rejects,
    }


def label_counts(frame: pd.DataFrame, column: str) -> dict[str, Any]:
    """Count the known and positive scans of one label column."""
    known = frame[frame[column].notna()]
    positive = known[known[column] == 1]
    return {
        "label": column.partition(":")[2],
        "known": len(known),
        "positive": len(positive),
        "positive_patients": int(positive["patient_id"].nunique()),
        "prevalence": len(positive) / len(known) if len(known) else None,
    }


def rejects_in(cache: Path) -> list[Path]:
    """Return the rejects.csv of a cache folder: its own, and those of the presets under it."""
    return [cache / "rejects.csv", *sorted(cache.glob("*/rejects.csv"))]


def reject_counts(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Count the codes in rejects.csv files, commonest first."""
    rows = []
    for file in files:
        try:
            codes = pd.read_csv(file, dtype=str, keep_default_na=False)["code"]
        except (KeyError, ValueError) as error:
            raise UsageError(f"rejects.csv can't be read ({error})", file, "make it anew or delete it") from error
        for code, number in Counter(codes).most_common():
            meaning = RejectCode[code].value if code in RejectCode.__members__ else ""
            rows.append({"file": str(file), "code": code, "count": number, "meaning": meaning})
    return rows
