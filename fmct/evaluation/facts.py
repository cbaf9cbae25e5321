"""What an evaluation knows besides its predictions; predictions.parquet keeps it, so that metrics.json follows."""

from __future__ import annotations

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from fmct.console.errors import UsageError
from fmct.evaluation.grouping import SUBGROUPS
from fmct.evaluation.operating_points import Thresholds
from fmct.experiment.config import Config

KEY = "fmct.evaluation"


class EvaluatedData(BaseModel):
    """Which scans were evaluated; keys of one's own may be added."""

    model_config = ConfigDict(extra="allow", frozen=True)

    manifest: str = ""
    split: str = ""
    sites: tuple[str, ...] = ()


class Facts(Config):
    """What `metrics.json` needs that no row of the predictions says.

    Attributes:
        data: which scans were evaluated; None where the predictions came from elsewhere.
        thresholds: found on validation scans; None where nobody looked for any.
        subgroups: by what the scans are divided.
    """

    data: EvaluatedData | None = None
    thresholds: Thresholds | None = None
    subgroups: tuple[str, ...] = SUBGROUPS


def with_facts(predictions: pd.DataFrame, facts: Facts) -> pd.DataFrame:
    """Return the predictions with the facts attached; Parquet files keep them."""
    predictions = predictions.copy(deep=False)
    predictions.attrs = {KEY: facts.model_dump(mode="json")}
    return predictions


def facts_of(predictions: pd.DataFrame) -> Facts:
    """Return the facts attached to predictions; the defaults where there are none.

    Raises:
        UsageError: when another version of fmct wrote them in another layout.
    """
    try:
        return Facts.model_validate(predictions.attrs.get(KEY, {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"what the evaluation recorded isn't laid out as this version does: {first['msg']}",
            f"the metadata of predictions.parquet, {where}",
            "run `fmct evaluate` again to write it anew",
        ) from error
