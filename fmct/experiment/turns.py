"""The runs of a study, in turn or several at a time: what fails is noted, and the others go on."""

from __future__ import annotations

import gc
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fmct.console.progress import track
from fmct.console.quietly import Outcome
from fmct.experiment.combination import Combination, free_memory
from fmct.experiment.side_by_side import side_by_side


def do_all(combinations: Sequence[Combination], what: str, *, jobs: int = 1, quiet: bool = False) -> dict[Path, str]:
    """Run what isn't done yet.

    Args:
        combinations: the runs.
        what: how progress calls them.
        jobs: how many at a time, each in a process of its own; one at a time, they are run in this process.
        quiet: show how many are done instead of a line for each.

    Returns:
        What was wrong with those that failed, by folder.
    """
    failures: dict[Path, str] = {}
    left = [one for one in combinations if not one.is_done]
    if len(left) < len(combinations):
        print(f"{what}: {len(combinations) - len(left)} of {len(combinations)} are done already", file=sys.stderr)
    start = time.monotonic()
    begun = iter(range(1, len(left) + 1))

    def begins(one: Combination) -> None:
        number = next(begun)
        if not quiet:
            print(f"[{number}/{len(left)}, {time.monotonic() - start:.0f} s] {one.folder}", file=sys.stderr, flush=True)

    ended = in_turn(left, begins) if jobs == 1 else side_by_side(left, jobs, begins)
    for one, outcome in track(ended, what, len(left)) if quiet and left else ended:
        if not outcome.ok:
            failures[one.folder] = outcome.error
            print(f"failed: {one.name}", file=sys.stderr, flush=True)
    return failures


def in_turn(
    combinations: Sequence[Combination], begins: Callable[[Combination], None]
) -> Iterator[tuple[Combination, Outcome]]:
    """Do runs in this process, one after another, and yield each with its outcome.

    Args:
        combinations: the runs.
        begins: called with a run before it is done.
    """
    gc.freeze()  # what is there now stays: looking it over after every run would take longer than small runs do
    try:
        for one in combinations:
            begins(one)
            outcome = one.run()
            free_memory()
            yield one, outcome
    finally:
        gc.unfreeze()


def print_commands(combinations: Sequence[Combination], *, as_json: bool) -> None:
    """Print the commands of all runs, one a line, or as lists of words."""
    commands = [["fmct", *command] for one in combinations for command in one.commands()]
    print(json.dumps(commands, indent=2) if as_json else "\n".join(map(shlex.join, commands)))
