"""The runs of a study in turn: what fails is noted, and the others go on."""

from __future__ import annotations

import gc
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from fmct.console.progress import track
from fmct.experiment.combination import Combination


def in_turn(combinations: Sequence[Combination], what: str, *, quiet: bool = False) -> dict[Path, str]:
    """Run what isn't done yet.

    Args:
        combinations: the runs.
        what: how progress calls them.
        quiet: show how many are done instead of a line for each.

    Returns:
        What was wrong with those that failed, by folder.
    """
    failures: dict[Path, str] = {}
    left = [one for one in combinations if not one.is_done]
    if len(left) < len(combinations):
        print(f"{what}: {len(combinations) - len(left)} of {len(combinations)} are done already", file=sys.stderr)
    start = time.monotonic()
    gc.freeze()  # what is there now stays: looking it over after every run would take longer than small runs do
    for number, one in enumerate(track(left, what) if quiet and left else left, 1):
        if not quiet:
            print(f"[{number}/{len(left)}, {time.monotonic() - start:.0f} s] {one.folder}", file=sys.stderr, flush=True)
        outcome = one.run()
        if not outcome.ok:
            failures[one.folder] = outcome.error
            print(f"failed: {one.name}", file=sys.stderr, flush=True)
        gc.collect()  # a trainer and its task hold each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    gc.unfreeze()
    return failures


def print_commands(combinations: Sequence[Combination], *, as_json: bool) -> None:
    """Print the commands of all runs, one a line, or as lists of words."""
    commands = [["fmct", *command] for one in combinations for command in one.commands()]
    print(json.dumps(commands, indent=2) if as_json else "\n".join(map(shlex.join, commands)))
