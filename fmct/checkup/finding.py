"""One thing that was looked at, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fmct.console.errors import FmctError

Level = Literal["ok", "warning", "problem"]
MARKS: dict[Level, str] = {"ok": "ok     ", "warning": "warning", "problem": "PROBLEM"}


@dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
        subject: what was looked at, in a word or two.
        level: ok; warning: it works, but worse than it might; problem: it has to be mended.
        said: what was seen.
        fix: how to mend it; empty when all is well.
    """

    subject: str
    level: Level
    said: str
    fix: str = ""

    def line(self) -> str:
        """Write it for people: one line, and a second one that says how to mend it."""
        fix = f"\n{'':26}Fix: {self.fix}" if self.fix else ""
        return f"{MARKS[self.level]}  {self.subject:<16} {self.said}{fix}"

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def ok(subject: str, said: str) -> Finding:
    """Return that all is well."""
    return Finding(subject, "ok", said)


def tried(subject: str, look: Callable[[], str]) -> Finding:
    """Try something that raises an expected error when it is wrong.

    Args:
        subject: what is looked at.
        look: returns what was seen.
    """
    try:
        return ok(subject, look())
    except FmctError as error:
        return Finding(subject, "problem", f"{error.what} ({error.where})", error.fix)
