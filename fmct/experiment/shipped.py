"""Where the experiment files are that come with fmct: beside the package in a clone, in it when installed."""

from __future__ import annotations

from pathlib import Path

from fmct.console.errors import UsageError

PACKAGE = Path(__file__).resolve().parent.parent
PLACES = (PACKAGE.parent / "experiments", PACKAGE / "shipped_experiments")
"""In a clone, and in a wheel (see `[tool.hatch.build.targets.wheel.force-include]` in pyproject.toml)."""
TELLING = "pretrain_mae_smoke.yaml"
"""A file that makes a folder of this name ours."""


def experiments_folder() -> Path:
    """Return the folder that holds the experiment files.

    Raises:
        UsageError: when they were left out of an installation.
    """
    for place in PLACES:
        if (place / TELLING).is_file():
            return place
    raise UsageError(
        "the experiment files aren't there", " or ".join(map(str, PLACES)), "install fmct again, or use a clone of it"
    )
