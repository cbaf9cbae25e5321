"""Work in several processes: one that dies takes nobody with it, and a full disk ends the run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from fmct.data.processes import run_jobs


@dataclass(frozen=True)
class Squares:
    """Squares numbers; -1 breaks off, -2 kills its process, -3 finds the disk full."""

    numbers: Sequence[int]

    def run(self) -> list[int]:
        for number in self.numbers:
            if number == -1:
                raise ZeroDivisionError
            if number == -2:
                os._exit(1)
            if number == -3:
                raise OSError(28, "No space left on device")
        return [number * number for number in self.numbers]

    def singly(self) -> list[Squares]:
        return [Squares([number]) for number in self.numbers]

    def failed(self, error: BaseException) -> list[int]:
        return [number * 1000 for number in self.numbers]


def test_this_process_keeps_the_order() -> None:
    jobs = (Squares([number, number + 1]) for number in range(0, 20, 2))
    assert [square for part in run_jobs(jobs, 1) for square in part] == [number * number for number in range(20)]
    assert list(run_jobs([], 2)) == []


def test_only_the_piece_that_breaks_is_lost() -> None:
    jobs = [Squares([100, -1, 101]), Squares([200, -2, 201]), *(Squares([number]) for number in range(40))]
    done = sorted(square for part in run_jobs(jobs, 2) for square in part)
    kept = [*range(40), 100, 101, 200, 201]
    assert done == sorted([*(number * number for number in kept), -1000, -2000])


def test_a_full_disk_ends_the_run() -> None:
    with pytest.raises(OSError, match="No space left"):
        list(run_jobs([Squares([1]), Squares([-3]), Squares([2])], 2))
    with pytest.raises(OSError, match="No space left"):
        list(run_jobs([Squares([-3])], 0))
