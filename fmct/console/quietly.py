"""Commands that another command runs: what they print goes into a log, how they end comes back."""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from fmct.console.errors import ExitCode, FmctError

INTERRUPTED = 130
LINES_OF_ERROR = 3


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: its exit status.
        error: what it said was wrong, in one line; empty when it ended well.
    """

    code: int
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether it did its work, maybe rejecting some inputs."""
        return self.code in {ExitCode.DONE, ExitCode.SOME_REJECTED}


class PreemptedError(FmctError):
    """A part was told to end by a signal; the whole ends with it, as preempted, so that SLURM starts it again."""

    exit_code = ExitCode.PREEMPTED


class Copied(io.TextIOBase):
    """A text file that also keeps what is written to it."""

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self.file = file
        self.kept: list[str] = []

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Write text."""
        self.kept.append(text)
        return self.file.write(text)

    def fileno(self) -> int:
        """Return the file's descriptor, for what may not print: handlers of signals."""
        return self.file.fileno()

    def flush(self) -> None:
        """Flush the file."""
        self.file.flush()


def run_quietly(arguments: Sequence[str], log: Path, *, own_process: bool = False) -> Outcome:
    """Run `fmct ARGUMENTS`.

    Args:
        arguments: the command and its flags, as on the command line.
        log: what it prints is added here.
        own_process: start a process for it, as commands need that start processes themselves; else it runs in this
            one, where torch has been imported already.

    Raises:
        KeyboardInterrupt: when it was interrupted.
        PreemptedError: when it was told to end by a signal.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ fmct {shlex.join(arguments)}\n")
        file.flush()
        code, said = (in_own_process if own_process else in_this_process)(arguments, file)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code == ExitCode.PREEMPTED:
        raise PreemptedError(
            "a run in it was asked to end; what it did is saved",
            f"fmct {shlex.join(arguments)}",
            "run it again: it goes on from there",
        )
    outcome = Outcome(code)
    return outcome if outcome.ok else Outcome(code, error_in(said) or f"ended with exit code {code}")


def in_this_process(arguments: Sequence[str], file: TextIO) -> tuple[int, str]:
    """Run a command here; returns its exit status and what it wrote to stderr."""
    from fmct.cli import main

    errors = Copied(file)
    with redirect_stdout(file), redirect_stderr(errors):
        try:
            code = main(arguments)
        except SystemExit as stop:  # from argparse
            code = stop.code if isinstance(stop.code, int) else int(ExitCode.FAILED)
        except Exception:  # noqa: BLE001 - whatever one run dies of must not end the others
            traceback.print_exc()
            code = int(ExitCode.FAILED)
    return code, "".join(errors.kept)


def in_own_process(arguments: Sequence[str], file: TextIO) -> tuple[int, str]:
    """Run a command in a process of its own; returns its exit status and what it wrote to stderr."""
    command = [sys.executable, "-m", "fmct.cli", *arguments]
    with subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        assert process.stderr is not None
        errors = Copied(file)
        for line in process.stderr:
            errors.write(line)
            errors.flush()
    return process.returncode, "".join(errors.kept)


def error_in(said: str) -> str:
    """Return the error that a command printed last, in one line: its three lines, or the end of a traceback."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if starts:
        what, *more = lines[starts[-1] : starts[-1] + LINES_OF_ERROR]
        return "; ".join([what.removeprefix("error: "), *more])
    return lines[-1] if lines else ""
