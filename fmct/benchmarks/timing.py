"""Times of several ways of doing the same thing, taken in turns, so that a noisy machine is unfair to none of them."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """How long one way took.

    Attributes:
        name: of the way.
        seconds: of each turn.
        items: how many things were done in each.
    """

    name: str
    seconds: tuple[float, ...]
    items: int

    @property
    def median_s(self) -> float:
        """Median time of a turn."""
        return statistics.median(self.seconds)

    @property
    def fastest_s(self) -> float:
        """Shortest time of a turn."""
        return min(self.seconds)

    @property
    def slowest_s(self) -> float:
        """Longest time of a turn."""
        return max(self.seconds)

    @property
    def per_second(self) -> float:
        """Things done per second, by the median."""
        return self.items / self.median_s


def time_in_turns(
    ways: Mapping[str, Callable[[], int]], turns: int, clock: Callable[[], float] = time.perf_counter
) -> list[Timing]:
    """Do each way once per turn, and say on stderr which turn it is.

    Args:
        ways: each returns how many things it did.
        turns: how often.
        clock: what tells the time, in seconds: the wall's, or that of the processor.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    items = dict.fromkeys(ways, 0)
    for turn in range(turns):
        print(f"turn {turn + 1} of {turns}", file=sys.stderr, flush=True)
        for name, way in ways.items():
            start = clock()
            items[name] = way()
            seconds[name].append(clock() - start)
    return [Timing(name, tuple(seconds[name]), items[name]) for name in ways]
