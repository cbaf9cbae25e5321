"""What the runs of a sweep gave: one row per run, evaluation and label, with the values that make the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fmct.evaluation.summary import LabelMetrics, read_metrics
from fmct.experiment.combination import Combination

NO_RESULT = "not finished"


def table_of_results(
    stages: Mapping[str, Sequence[Combination]], failures: Mapping[Path, str]
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Gather the results.

    Args:
        stages: all runs, by stage.
        failures: what was wrong with those that failed, by folder.

    Returns:
        A table, and the runs that have no result, each with its reason. Columns: stage, run, the keys of the grid,
        evaluation, label, n_scans, n_patients, n_positive, auroc, auroc_low, auroc_high, ap, ap_low, ap_high, status,
        reason. A run without a result has one row, with status `failed` and nothing in between. A run that isn't
        evaluated has none.
    """
    rows: list[dict[str, Any]] = []
    missing = []
    for stage, combinations in stages.items():
        for one in combinations:
            base = {"stage": stage, "run": one.name, **one.values}
            if not one.is_done or one.folder in failures:
                reason = failures.get(one.folder, NO_RESULT)
                missing.append({"stage": stage, "run": one.name, "folder": str(one.folder), "reason": reason})
                rows.append({**base, "status": "failed", "reason": reason})
                continue
            for evaluation in one.evaluations:
                metrics = read_metrics(evaluation.folder(one.folder) / "metrics.json")
                for label, values in metrics.labels.items():
                    rows.append({**base, "evaluation": evaluation.name, "label": label, **row_of(values)})
    columns = ["stage", "run", *next(iter(stages.values()))[0].values, "evaluation", "label", *ROW]
    return with_one_type(pd.DataFrame(rows, columns=columns)), missing


ROW = (
    "n_scans", "n_patients", "n_positive", "auroc", "auroc_low", "auroc_high", "ap", "ap_low", "ap_high", "status",
    "reason",
)  # fmt: skip


def row_of(values: LabelMetrics) -> dict[str, Any]:
    """Return the part of a row that holds one label's metrics."""
    auroc_low, auroc_high = values.auroc_ci or (None, None)
    ap_low, ap_high = values.ap_ci or (None, None)
    row = (
        values.n_scans, values.n_patients, values.n_positive, values.auroc, auroc_low, auroc_high, values.ap, ap_low,
        ap_high, values.status, values.reason,
    )  # fmt: skip
    return dict(zip(ROW, row, strict=True))


def with_one_type(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn columns of numbers and words, such as 0.1 and `scratch`, into words: Parquet has one type per column."""
    for name in frame.columns:
        words = [isinstance(value, str) for value in frame[name].dropna()]
        if any(words) and not all(words):
            frame = frame.assign(**{name: frame[name].map(lambda value: value if pd.isna(value) else str(value))})
    return frame
