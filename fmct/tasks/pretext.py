"""What configurations of tasks without labels have in common."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from fmct.experiment.config import Config


class PretextConfig(Config):
    """A task that learns without labels."""

    weights: Path | None = Field(
        None, description="weight package or run whose encoder to pretrain further; null: random weights"
    )
