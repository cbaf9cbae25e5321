"""JSON schemas of the files in experiments/, so that editors complete keys and mark what is wrong."""

from __future__ import annotations

from typing import Any, Literal

from fmct.experiment.schema import Experiment
from fmct.experiment.sweep_file import SweepConfig

FileKind = Literal["experiment", "overlay", "sweep"]
SCHEMA_FILES: dict[FileKind, str] = {
    "experiment": "schema.json",
    "overlay": "schema_overlay.json",
    "sweep": "schema_sweep.json",
}
"""Under which name each lies in experiments/."""


def schema_of(kind: FileKind) -> dict[str, Any]:
    """Make the JSON schema of a kind of file.

    Args:
        kind: experiment, a complete run; overlay, some of its keys, laid over one; sweep, a grid of runs.

    Returns:
        A JSON schema (draft 2020-12). Checks across keys aren't in it: `fmct fit --print-config` makes those.
    """
    model = SweepConfig if kind == "sweep" else Experiment
    title = {"experiment": "fmct experiment", "overlay": "fmct overlay", "sweep": "fmct sweep"}[kind]
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(), "title": title}
    return without_required(schema) if kind == "overlay" else schema


def without_required(schema: Any) -> Any:
    """Return a schema that asks for no key, but for those that say which class is meant."""
    if isinstance(schema, dict):
        return {
            key: without_required(value)
            for key, value in schema.items()
            if not (key == "required" and isinstance(value, list))
        }
    return [without_required(one) for one in schema] if isinstance(schema, list) else schema


def hint(kind: FileKind, depth: int) -> str:
    """Return the first line of a file, which tells editors its schema.

    Args:
        kind: of the file.
        depth: folders between experiments/ and the file.
    """
    return f"# yaml-language-server: $schema={'../' * depth}{SCHEMA_FILES[kind]}"
