"""What many runs said about the same scans, side by side: one column per run, one table per label.

N scans, S runs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmct.console.errors import UsageError
from fmct.evaluation.comparison import SAME_SCANS
from fmct.evaluation.confidence import PatientCounts
from fmct.evaluation.metrics import Floats
from fmct.evaluation.summary import why_undefined


@dataclass(frozen=True, eq=False)
class LabelScores:
    """Scores of one label.

    Attributes:
        label: its name.
        scan: (N,) scans whose target is known, in order.
        patient: (N,) of each scan.
        target: (N,) 0 or 1.
        scores: (N, S) of the runs.
        runs: what the columns stand for.
    """

    label: str
    scan: NDArray[np.object_]
    patient: NDArray[np.object_]
    target: Floats
    scores: Floats
    runs: Sequence[Hashable]

    @property
    def reason(self) -> str:
        """Why there is no AUROC; empty when there is."""
        return why_undefined(self.target)

    @property
    def patients(self) -> PatientCounts:
        """How many patients stand behind each class."""
        return PatientCounts.of(self.patient, self.target)

    def counts(self) -> dict[str, Any]:
        """Return n_scans, n_patients, n_positive."""
        return {
            "n_scans": len(self.target),
            "n_patients": self.patients.total,
            "n_positive": int(self.target.sum()),
        }

    def of(self, runs: Sequence[Hashable]) -> Floats:
        """Return (N, len(runs)) scores of some of the runs."""
        return self.scores[:, [self.runs.index(run) for run in runs]]


def side_by_side(label: str, predictions: Mapping[Hashable, pd.DataFrame]) -> LabelScores:
    """Join the predictions of runs by scan.

    Args:
        label: whose rows to take.
        predictions: by run, as `fmct.evaluation.predictions.read_predictions` gives them.

    Raises:
        UsageError: when the runs saw other scans, or other targets for them.
    """
    columns: list[Floats] = []
    first: pd.DataFrame | None = None
    for run, frame in predictions.items():
        rows = frame[frame["label"] == label].sort_values("scan_id").reset_index(drop=True)
        first = rows if first is None else first
        same = len(rows) == len(first) and all(
            rows[name].equals(first[name]) for name in ("scan_id", "patient_id", "target")
        )
        if not same:
            what = f"the runs {next(iter(predictions))} and {run} weren't evaluated on the same scans and targets"
            raise UsageError(what, f"label {label}", SAME_SCANS)
        columns.append(rows["probability"].to_numpy(np.float64))
    assert first is not None
    known = first["target"].notna().to_numpy()
    return LabelScores(
        label=label,
        scan=first["scan_id"].to_numpy(object)[known],
        patient=first["patient_id"].to_numpy(object)[known],
        target=first["target"].to_numpy(np.float64)[known],
        scores=np.stack(columns, axis=1)[known],
        runs=list(predictions),
    )
