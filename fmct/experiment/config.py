"""The base of every configuration class: unknown keys are errors, values are validated and never change."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A part of the configuration; its fields are documented by their descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """List dotted keys whose values differ: `optimizer.lr: 0.001 -> 0.002`."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {before} -> {after}")
    return found
