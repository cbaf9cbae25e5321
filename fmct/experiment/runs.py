"""A run's folder: what is in it, when a run goes on and when it starts over.

RUN/experiment.yaml   the whole configuration, every default written out
RUN/environment.json  versions, device, git revision, how far the run came
RUN/checkpoints/      the newest step*.ckpt, and last.ckpt, a link to it
RUN/quarantine.csv    scans that training left out because they couldn't be read, if there are any
RUN/tb/  metrics.csv  pictures/  weights/  evaluations/
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml

from fmct import __version__
from fmct.console.errors import UsageError
from fmct.console.files import write_text_atomically
from fmct.experiment.config import differences
from fmct.experiment.loading import as_record, completed, digest
from fmct.experiment.run_record import ENVIRONMENT, EXPERIMENT, read_environment, read_experiment
from fmct.experiment.schema import Experiment

LAST = "checkpoints/last.ckpt"
WATCHING = "callbacks."
PACKAGES = ("torch", "lightning", "monai", "numpy", "pydicom", "nibabel", "blosc2", "pydantic")


@dataclass(frozen=True)
class Start:
    """How a run begins: its folder, and the checkpoint it goes on from, if any."""

    folder: Path
    checkpoint: Path | None


def begin(experiment: Experiment, *, fresh: bool, first_process: bool) -> Start:
    """Make the run's folder, or find the checkpoint to go on from.

    A run goes on when the configuration is the same; keys that are younger than the run count as their defaults, and
    the section `callbacks` may change: what watches a run has no part in what it learns.
    `fresh` sets the old folder aside, under a numbered name; so does another configuration where the old run never came
    to a checkpoint and isn't finished.

    Args:
        experiment: what is to run.
        fresh: start over.
        first_process: whether this process may write; other ranks only look.

    Raises:
        UsageError: when the folder holds a run with another configuration, listing what differs.
    """
    folder = run_folder(experiment)
    record = as_record(experiment)
    changes = changes_since(folder, record)
    if fresh or (changes and not is_begun(folder)):
        if first_process and folder.exists():
            set_aside(folder)
    elif changes:
        raise UsageError(
            f"the run exists with another configuration ({first_of(changes)})",
            folder,
            "give the new run another --name, or start over with --fresh (the old folder is kept)",
        )
    if first_process:
        text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True)
        write_text_atomically(folder / EXPERIMENT, f"# {digest(record)}: the whole configuration of this run\n{text}")
    checkpoint = folder / LAST
    return Start(folder, checkpoint if checkpoint.exists() and not fresh else None)


def changes_since(folder: Path, record: dict[str, Any]) -> list[str]:
    """List what in a configuration differs from that of the run in a folder; nothing, where there is no run.

    Keys that are younger than the run count as their defaults, and the section `callbacks` may differ.
    """
    if not (folder / EXPERIMENT).exists():
        return []
    changes = differences(completed(read_experiment(folder)), record)
    return [change for change in changes if not change.startswith(WATCHING)]


def first_of(changes: list[str]) -> str:
    """Write the first of some changes, and how many more there are."""
    return "; ".join(changes[:6]) + (f"; and {len(changes) - 6} more" if len(changes) > 6 else "")


def is_begun(folder: Path) -> bool:
    """Say whether a folder holds work that is worth keeping: a checkpoint, or a finished run."""
    return (folder / LAST).exists() or is_finished(folder)


def is_finished(folder: Path) -> bool:
    """Say whether a folder holds a run that came to its end."""
    return bool(read_environment(folder).get("finished"))


def run_folder(experiment: Experiment) -> Path:
    """Return where an experiment's run is."""
    return experiment.trainer.runs / experiment.name


def set_aside(folder: Path) -> Path:
    """Rename a run's folder to the first free `NAME.1`, `NAME.2`, ...; nothing is deleted."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return folder.rename(aside)


def describe_environment(**facts: Any) -> dict[str, Any]:
    """Return versions, machine, git revision and the facts given."""
    revision = subprocess.run(  # noqa: S603 - fixed words
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "fmct": __version__,
        "git": revision.stdout.strip() or None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": gpu or f"CPU ({torch.get_num_threads()} threads)",
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    } | facts


def write_environment(folder: Path, **facts: Any) -> None:
    """Write environment.json."""
    write_text_atomically(folder / ENVIRONMENT, json.dumps(describe_environment(**facts), indent=2) + "\n")
