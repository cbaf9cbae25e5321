"""A table of timings as `fmct bench` prints it: medians with their range, as ratios to the first way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fmct.benchmarks.timing import Timing


@dataclass(frozen=True)
class Table:
    """Several ways of doing the same thing, measured in turns.

    Attributes:
        title: what was done, on what.
        unit: what the things done are called, in the plural.
        timings: the ways; the first is the baseline of the ratios.
        notes: what else was measured, a line each.
    """

    title: str
    unit: str
    timings: Sequence[Timing]
    notes: Sequence[str] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per way, as JSON has it; times in seconds, of a whole turn."""
        base = self.timings[0].per_second
        return [
            {
                "case": self.title,
                "way": timing.name,
                "median_s": timing.median_s,
                "least_s": timing.fastest_s,
                "most_s": timing.slowest_s,
                "turns": len(timing.seconds),
                "unit": self.unit,
                "per_second": timing.per_second,
                "ratio": timing.per_second / base,
            }
            for timing in self.timings
        ]

    def text(self) -> str:
        """Return the table as lines."""
        width = max(36, *(len(timing.name) + 2 for timing in self.timings))
        lines = [self.title, f"{'':<{width}}{f'{self.unit}/s':>12}{'ms each: median, range':>32}{'ratio':>10}"]
        for timing, row in zip(self.timings, self.rows(), strict=True):
            each = [1000 * seconds / timing.items for seconds in (timing.median_s, row["least_s"], row["most_s"])]
            times = f"{each[0]:,.3g}  ({each[1]:,.3g}–{each[2]:,.3g})"
            lines.append(f"{timing.name:<{width}}{timing.per_second:>12,.4g}{times:>32}{row['ratio']:>9.2f}x")
        return "\n".join([*lines, *self.notes])
