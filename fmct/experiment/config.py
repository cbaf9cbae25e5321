"""The base of every configuration class: unknown keys are errors, values are validated and never change."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A part of the configuration; its fields are documented by their descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
