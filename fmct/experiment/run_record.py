"""What a run's folder says about itself: its configuration, and where and how far it ran. Read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from fmct.console.errors import UsageError, require_file

EXPERIMENT, ENVIRONMENT = "experiment.yaml", "environment.json"


def read_experiment(folder: Path) -> dict[str, Any]:
    """Read experiment.yaml, which makes a folder a run.

    Raises:
        UsageError: when the folder is no run (naming the runs in it), or the file is damaged.
    """
    require_file(folder, "the run's folder", "give the folder that `fmct fit` wrote, usually runs/NAME")
    path = folder / EXPERIMENT
    if not path.is_file():
        inside = sorted(run.parent.name for run in folder.glob(f"*/{EXPERIMENT}")) if folder.is_dir() else []
        fix = "give the folder that `fmct fit` wrote, usually runs/NAME"
        if inside:
            fix = f"give the runs themselves: {' '.join(str(folder / name) for name in inside[:8])}"
        raise UsageError("not a run: there is no experiment.yaml", folder, fix)
    try:
        experiment = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"experiment.yaml can't be read ({str(error).splitlines()[0]})", path, "restore it") from error
    if not isinstance(experiment, dict):
        raise UsageError("experiment.yaml holds no configuration", path, "restore it as `fmct fit` wrote it")
    return experiment


def read_environment(folder: Path) -> dict[str, Any]:
    """Read environment.json of a run; an absent one is an empty dictionary.

    Raises:
        UsageError: when it isn't JSON.
    """
    path = folder / ENVIRONMENT
    if not path.is_file():
        return {}
    try:
        environment = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"environment.json isn't JSON ({error})", path, "restore or delete it") from error
    return environment if isinstance(environment, dict) else {}
