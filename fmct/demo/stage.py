"""One stage of the demo: commands, and a file that exists once they are done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stage:
    """One or several commands that belong together.

    Attributes:
        name: of its record and its log.
        title: what it is for.
        commands: without `fmct`.
        seconds: on two cores that have nothing else to do.
        result: exists once the stage is done.
    """

    name: str
    title: str
    commands: tuple[tuple[str, ...], ...]
    seconds: float
    result: Path
