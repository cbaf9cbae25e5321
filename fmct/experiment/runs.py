"""A run's folder: what is in it, when a run goes on and when it starts over.

RUN/experiment.yaml   the whole configuration, every default written out
RUN/environment.json  versions, device, git revision, how far the run came; written at its end
RUN/history.json      the parts of the run, one for each time that it went on: code, machine, checksums of its scans
RUN/first_losses.json by which `fmct fit --replay RUN` tells whether it comes out the same elsewhere
RUN/checkpoints/      the newest step*.ckpt, and last.ckpt, a link to the one that the run goes on from
RUN/quarantine.csv    scans that training left out because they couldn't be read, if there are any
RUN/tb/  metrics.csv  pictures/  weights/  evaluations/
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from fmct.console.errors import UsageError
from fmct.console.files import write_text_atomically
from fmct.experiment.checkpoint_folder import CheckpointFolder
from fmct.experiment.config import differences
from fmct.experiment.continuation import is_free, require_possible, require_same_tensors
from fmct.experiment.loading import as_record, completed, digest
from fmct.experiment.provenance import describe_environment
from fmct.experiment.run_record import ENVIRONMENT, EXPERIMENT, read_environment, read_experiment
from fmct.experiment.schema import Experiment

CHECKPOINTS = "checkpoints"
LAST = f"{CHECKPOINTS}/last.ckpt"


@dataclass(frozen=True)
class Start:
    """How a run begins: its folder, the checkpoint it goes on from, if any, and what is configured anew since then."""

    folder: Path
    checkpoint: Path | None
    changes: tuple[str, ...] = ()


def begin(experiment: Experiment, *, fresh: bool, first_process: bool, changed: nn.Module | None = None) -> Start:
    """Make the run's folder, or find the checkpoint to go on from.

    A run goes on when the configuration is the same; keys that are younger than the run count as their defaults, and
    what has no part in what it learns may change: how it is watched and saved.
    `fresh` sets the old folder aside, under a numbered name; so does another configuration where the old run never came
    to a checkpoint and isn't finished.

    Args:
        experiment: what is to run.
        fresh: start over.
        first_process: whether this process may write; other ranks only look.
        changed: go on with another configuration too, if that is possible with this network; None: with the same only.

    Raises:
        UsageError: when the folder holds a run with another configuration, listing what differs, or `changed` asks for
            what can't be.
        FmctError: when all of the run's checkpoints are damaged.
    """
    folder = run_folder(experiment)
    record = as_record(experiment)
    changes = changes_since(folder, record)
    if fresh or (changes and not is_begun(folder)):
        if first_process and folder.exists():
            set_aside(folder)
    elif changes and changed is not None and not is_finished(folder):
        require_possible(changes, folder)
    elif changes:
        fix = "give the new run another --name, or start over with --fresh (the old folder is kept)"
        going_on = "" if is_finished(folder) else "; --continue-with-changes goes on with what it can"
        raise UsageError(f"the run exists with another configuration ({first_of(changes)})", folder, fix + going_on)
    begun = is_begun(folder) and not fresh
    checkpoint = CheckpointFolder(folder / CHECKPOINTS).newest_sound(aloud=first_process) if begun else None
    if changed is not None and checkpoint is not None:
        require_same_tensors(changed, checkpoint)
    if first_process:
        text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True)
        write_text_atomically(folder / EXPERIMENT, f"# {digest(record)}: the whole configuration of this run\n{text}")
    return Start(folder, checkpoint, tuple(changes) if checkpoint else ())


def changes_since(folder: Path, record: dict[str, Any]) -> list[str]:
    """List what in a configuration differs from that of the run in a folder; nothing, where there is no run.

    Keys that are younger than the run count as their defaults, and what has no part in what it learns may differ.
    """
    if not (folder / EXPERIMENT).exists():
        return []
    changes = differences(completed(read_experiment(folder)), record)
    return [change for change in changes if not is_free(change)]


def first_of(changes: list[str]) -> str:
    """Write the first of some changes, and how many more there are."""
    return "; ".join(changes[:6]) + (f"; and {len(changes) - 6} more" if len(changes) > 6 else "")


def is_begun(folder: Path) -> bool:
    """Say whether a folder holds work that is worth keeping: a checkpoint, or a finished run."""
    last = folder / LAST
    return last.exists() or last.is_symlink() or is_finished(folder)


def is_finished(folder: Path) -> bool:
    """Say whether a folder holds a run that came to its end."""
    return bool(read_environment(folder).get("finished"))


def finished_already(folder: Path) -> str:
    """Say that a run has come to its end, and what one can do."""
    return f"{folder} is finished already; start over with --fresh, or give another --name"


def run_folder(experiment: Experiment) -> Path:
    """Return where an experiment's run is."""
    return experiment.trainer.runs / experiment.name


def set_aside(folder: Path) -> Path:
    """Rename a run's folder to the first free `NAME.1`, `NAME.2`, ...; nothing is deleted."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return folder.rename(aside)


def write_environment(folder: Path, **facts: Any) -> None:
    """Write environment.json."""
    write_text_atomically(folder / ENVIRONMENT, json.dumps(describe_environment(**facts), indent=2) + "\n")
