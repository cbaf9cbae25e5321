"""metrics.csv: one row per step at which something was logged; a resumed run goes on in the same table."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from fmct.console.files import atomic_path

SECONDS_BETWEEN_WRITES = 10.0


class MetricsTable(Logger):
    """A Lightning logger that keeps all scalars in one CSV file, written whole and atomically.

    Lightning's CSVLogger deletes the earlier table when a run resumes; this one reads it first.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.written = time.monotonic()
        self.seconds_to_write = 0.0

    @cached_property
    def rows(self) -> dict[int, dict[str, float]]:
        """What was logged, by step; begins with what an earlier part of the run has written."""
        if not self.path.exists():
            return {}
        records = pd.read_csv(self.path).to_dict("records")
        return {int(row["step"]): {str(k): v for k, v in row.items() if k != "step" and v == v} for row in records}

    @property
    def name(self) -> str:
        """The logger's name, for Lightning."""
        return "metrics"

    @property
    def version(self) -> str:
        """The logger's version, for Lightning."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add scalars to the row of a step."""
        self.rows.setdefault(int(step or 0), {}).update({k: float(v) for k, v in metrics.items()})

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Hyper-parameters are in experiment.yaml; a table of scalars has no place for them."""

    @rank_zero_only
    def save(self) -> None:
        """Write the table when that is due; Lightning asks for it whenever something is logged.

        A long table takes a while, so writing never takes more than a hundredth of the time.
        """
        if time.monotonic() - self.written > max(SECONDS_BETWEEN_WRITES, 100 * self.seconds_to_write):
            self.write()

    @rank_zero_only
    def write(self) -> None:
        """Write the table now."""
        start = time.monotonic()
        if self.rows:
            table = pd.DataFrame([{"step": step, **row} for step, row in sorted(self.rows.items())])
            with atomic_path(self.path) as temporary:
                table.to_csv(temporary, index=False)
        self.written = time.monotonic()
        self.seconds_to_write = self.written - start

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the table when the run ends, however it ended."""
        self.write()
