"""Completion of commands and flags in a shell: a script, made once, that starts no Python while one types."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
from collections.abc import Callable, Mapping, Sequence

import shtab

from fmct.console.command import Command, PathsAsGiven

SHELLS = ("bash", "zsh")
OF_EXPERIMENTS = {"fit", "submit"}
"""Commands whose flags are the experiment's keys."""


def completion(shell: str, commands: Mapping[str, str]) -> str:
    """Write the script.

    Args:
        shell: bash or zsh.
        commands: what each command does, by name.
    """
    parser = argparse.ArgumentParser(prog="fmct", allow_abbrev=False)
    parser.add_argument("--version", action="store_true", help="print the version")
    subparsers = parser.add_subparsers()
    for name, does in commands.items():
        module = importlib.import_module(f"fmct.{name.replace('-', '_')}")
        added = subparsers.add_parser(name, help=does)
        if name in OF_EXPERIMENTS:
            add_keys_of_experiments(added, module.parse)
        else:
            add_flags(added, module.COMMAND)
    return str(shtab.complete(parser, shell=shell))


def add_flags(parser: argparse.ArgumentParser, command: type[Command]) -> None:
    """Give a parser the flags of a command; what takes a path completes to files."""
    PathsAsGiven(command, root_parser=parser)
    for action in parser._actions:
        if action.metavar and "Path" in str(action.metavar):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    for action in parser._actions:
        if not action.option_strings and command.model_fields:
            action.complete = shtab.FILE  # type: ignore[attr-defined]


def add_keys_of_experiments(parser: argparse.ArgumentParser, parse: Callable[[Sequence[str]], object]) -> None:
    """Give a parser a command's own flags, as its help lists them, and every key of an experiment file."""
    from fmct.experiment.flags import known_fields
    from fmct.experiment.schema import Experiment

    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        parse(["--help"])
    for flag in dict.fromkeys(re.findall(r"^ +(--[a-z-]+)", text.getvalue(), re.MULTILINE)):
        action = parser.add_argument(flag)
        if flag == "--config":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    for key in known_fields(Experiment):
        parser.add_argument(f"--{key}")
