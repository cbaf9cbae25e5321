"""Two runs on the same scans, in one number: the mean AUROC over labels, and its difference with an interval."""

from __future__ import annotations

import pandas as pd

from fmct.evaluation.confidence import Bootstrap, percentile_interval
from fmct.evaluation.run_scores import side_by_side
from fmct.evaluation.seed_means import mean_over_labels, scarcest
from fmct.experiment.config import Config


class MeanDifference(Config):
    """Mean AUROC over labels of run a and of run b, and a minus b; intervals are None where patients are too few."""

    labels: tuple[str, ...]
    a: float
    a_ci: tuple[float, float] | None
    b: float
    b_ci: tuple[float, float] | None
    difference: float
    ci: tuple[float, float] | None
    note: str

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.ci is not None and not self.ci[0] <= 0 <= self.ci[1]


def mean_difference(
    predictions_a: pd.DataFrame, predictions_b: pd.DataFrame, settings: Bootstrap
) -> MeanDifference | None:
    """Compare the means over the labels that both runs predict and that have scans of both classes.

    A replicate draws patients once, for all labels and both runs.

    Args:
        predictions_a: rows as in `fmct.evaluation.predictions.check_predictions`.
        predictions_b: the same scans under another run.
        settings: of the bootstrap.

    Returns:
        The means and their difference; None where there is no such label.

    Raises:
        UsageError: when the scans or their targets differ.
    """
    common = [label for label in predictions_a["label"].unique() if (predictions_b["label"] == label).any()]
    tables = [side_by_side(str(label), {"a": predictions_a, "b": predictions_b}) for label in common]
    tables = [table for table in tables if not table.reason]
    if not tables:
        return None
    values, replicates = mean_over_labels(tables, [("a", "b")] * len(tables), settings, ("auroc",))
    (a, b), (of_a, of_b), patients = values[0], replicates[0], scarcest(tables)
    bounds = [percentile_interval(one, patients, settings.confidence) for one in (of_a, of_b, of_a - of_b)]
    return MeanDifference(
        labels=tuple(table.label for table in tables),
        **{"a": float(a), "a_ci": bounds[0].bounds, "b": float(b), "b_ci": bounds[1].bounds},
        **{"difference": float(a - b), "ci": bounds[2].bounds, "note": bounds[2].note},
    )
