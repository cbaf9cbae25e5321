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
from fmct.experiment.run_record import ENVIRONMENT, EXPERIMENT, read_experiment
from fmct.experiment.schema import Experiment

LAST = "checkpoints/last.ckpt"
PACKAGE = "weights/config.json"
FINISHED = "{folder} is finished already; start over with --fresh, or give another --name"
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
    to a checkpoint or, having none, to its weights.

    Args:
        experiment: what is to run.
        fresh: start over.
        first_process: whether this process may write; other ranks only look.

    Raises:
        UsageError: when the folder holds a run with another configuration, listing what differs.
    """
    folder = run_folder(experiment)
    record = as_record(experiment)
    changes = differences(completed(read_experiment(folder)), record) if (folder / EXPERIMENT).exists() else []
    changes = [change for change in changes if not change.startswith(WATCHING)]
    arrived = (folder / LAST).exists() or (folder / PACKAGE).exists()
    if fresh or (changes and not arrived):
        if first_process and folder.exists():
            set_aside(folder)
    elif changes:
        listed = "; ".join(changes[:6]) + (f"; and {len(changes) - 6} more" if len(changes) > 6 else "")
        raise UsageError(
            f"the run exists with another configuration ({listed})",
            folder,
            "give the new run another --name, or start over with --fresh (the old folder is kept)",
        )
    if first_process:
        text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True)
        write_text_atomically(folder / EXPERIMENT, f"# {digest(record)}: the whole configuration of this run\n{text}")
    checkpoint = folder / LAST
    return Start(folder, checkpoint if checkpoint.exists() and not fresh else None)


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
