"""A run's configuration as TensorBoard's table of hyper-parameters takes it: one flat row of plain values."""

from __future__ import annotations

from typing import Any

LEFT_OUT = {"name", "data.manifest", "data.cache", "data.root", "trainer.runs"}
"""Keys that say where things are, not what is learned."""


def flat(record: dict[str, Any], above: str = "") -> dict[str, str | float | bool]:
    """Flatten a configuration: {"task": {"kind": "mae"}} becomes {"task.kind": "mae"}; lists are written out.

    Args:
        record: as `as_record` gives it.
        above: the section that it is.
    """
    values: dict[str, str | float | bool] = {}
    for name, value in record.items():
        key = f"{above}{name}"
        if isinstance(value, dict):
            values |= flat(value, f"{key}.")
        elif key not in LEFT_OUT and value is not None:
            values[key] = value if isinstance(value, str | int | float | bool) else str(value)
    return values
