"""A backbone without a network: features that something else made of the scans, taken from a table as they are.

B scans, D width.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from fmct.console.errors import UsageError
from fmct.experiment.config import Config


class FeaturesConfig(Config):
    """Features of a table (`data.features`), one row per scan."""

    kind: Literal["features"] = "features"
    width: int | None = Field(None, gt=0, description="number of features; null: as many as the table has")
    columns: tuple[str, ...] | None = Field(
        None, min_length=1, description="names of the features, in their order; null: all that the table has"
    )

    @model_validator(mode="after")
    def _as_many_names(self) -> FeaturesConfig:
        if self.columns is not None and self.width not in {None, len(self.columns)}:
            raise ValueError(f"width is {self.width}, and columns names {len(self.columns)} features")
        return self

    def of(self, columns: tuple[str, ...]) -> FeaturesConfig:
        """Return the same with the names of the table's features filled in."""
        return self.model_validate({"width": len(columns), "columns": columns})

    def build(self, in_channels: int, input_voxels: int | tuple[int, int, int]) -> Features:
        """Make the backbone; the arguments, about volumes, don't matter.

        Raises:
            UsageError: when the table's columns aren't filled in.
        """
        if self.width is None:
            raise UsageError(
                "there is no network behind the backbone `features`",
                "backbone.kind",
                "use task.mode logreg or knn with data.features, which have none to train",
            )
        return Features(self, self.width)


class Features(nn.Module):
    """Hands features through, as the one token of each scan.

    Attributes:
        config: what it was built from.
        width: D.
        prefix_tokens: 1: there are no tokens of places.
    """

    def __init__(self, config: FeaturesConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.width = width
        self.prefix_tokens = 1

    def forward(self, x_BD: Tensor) -> Tensor:
        """Turn features (B, D) into tokens (B, 1, D).

        Raises:
            UsageError: when something else is given, such as a volume.
        """
        if x_BD.ndim != 2 or x_BD.shape[1] != self.width:
            raise UsageError(
                f"these weights take {self.width} features per scan, not a tensor of shape {tuple(x_BD.shape[1:])}",
                "what the network is shown",
                "give it rows of the table that its config.json names the columns of",
            )
        return x_BD[:, None]
