"""How long the rest will take: the stages' usual seconds, corrected by how fast this machine has been so far."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fmct.console.errors import UsageError
from fmct.console.files import write_text_atomically
from fmct.demo.stage import Stage

PRIOR_SECONDS = 60.0
"""Usual seconds that count as measured already, so that one short stage alone doesn't overturn the estimate."""


@dataclass
class Record:
    """Which stages are done, kept in a folder: a file per stage, written once it is.

    Attributes:
        folder: of the records.
        seconds: of the stages that are done, by name.
    """

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    def knows(self, stage: Stage) -> bool:
        """Say whether a stage was done by the same commands, and its result is still there.

        Raises:
            UsageError: when it was done by other ones.
        """
        file = self.folder / f"{stage.name}.json"
        if not file.exists() or not stage.result.exists():
            return False
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["commands"] != [list(command) for command in stage.commands]:
            raise UsageError(
                f"the folder holds a demo with other settings (stage {stage.name})",
                self.folder.parent,
                "give the same flags, another --out, or --fresh to start over (the old folder is kept)",
            )
        self.seconds[stage.name] = float(content["seconds"])
        return True

    def add(self, stage: Stage, seconds: float) -> None:
        """Note that a stage is done."""
        self.seconds[stage.name] = seconds
        content = {"commands": [list(command) for command in stage.commands], "seconds": round(seconds, 2)}
        write_text_atomically(self.folder / f"{stage.name}.json", json.dumps(content, indent=2) + "\n")


class Clock:
    """Knows when a stage began and says how long everything that is left will take.

    Args:
        stages: all of them.
        record: of those that are done.
    """

    def __init__(self, stages: Sequence[Stage], record: Record) -> None:
        self.stages = stages
        self.record = record
        self.begun = time.monotonic()
        self.stage: Stage | None = None
        self.stage_begun = self.begun

    def begin(self, stage: Stage) -> None:
        """Note that a stage begins now."""
        self.stage, self.stage_begun = stage, time.monotonic()

    def end(self) -> None:
        """Note that the stage is done."""
        assert self.stage is not None
        self.record.add(self.stage, time.monotonic() - self.stage_begun)
        self.stage = None

    @property
    def elapsed(self) -> float:
        """Seconds since this process began."""
        return time.monotonic() - self.begun

    @property
    def slowness(self) -> float:
        """Seconds that this machine takes for a usual one, as far as is known."""
        usual = sum(stage.seconds for stage in self.stages if stage.name in self.record.seconds)
        return (PRIOR_SECONDS + sum(self.record.seconds.values())) / (PRIOR_SECONDS + usual)

    @property
    def left(self) -> float:
        """Seconds that the stage that runs and those that aren't done will take.

        A stage that takes longer than expected is taken for nearly done: a tenth of what it has taken is left.
        """
        waiting = [one for one in self.stages if one.name not in self.record.seconds and one is not self.stage]
        seconds = self.slowness * sum(stage.seconds for stage in waiting)
        if self.stage is not None:
            taken = time.monotonic() - self.stage_begun
            seconds += max(self.slowness * self.stage.seconds - taken, 0.1 * taken)
        return seconds

    @property
    def share(self) -> float:
        """Share of all work that is done, by time."""
        done = sum(self.record.seconds.values())
        done += time.monotonic() - self.stage_begun if self.stage is not None else 0.0
        return done / max(done + self.left, 1e-9)
