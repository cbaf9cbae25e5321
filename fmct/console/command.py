"""A command is a pydantic settings model: its fields are the flags, its docstring the help, `run` the work."""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from fmct.console.errors import ExitCode, FmctError, UsageError, nearest
from fmct.console.file_errors import file_error
from fmct.console.one_screen import OneScreen


class Command(BaseSettings):
    """Base of all commands: flags in kebab case, unknown ones refused with the nearest known one."""

    model_config = SettingsConfigDict(
        extra="forbid",
        env_prefix="FMCT_COMMAND_",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_exit_on_error=False,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    debug: bool = Field(False, description="show the traceback of an error")

    def run(self) -> ExitCode:
        """Do the work and say how it ended."""
        raise TypeError(f"{type(self).__name__} is not a command by itself: it defines no run()")


class PathsAsGiven(CliSettingsSource[Any]):
    """Reads a command line without looking into paths: `2019` is a folder, not a number, and may hold a comma."""

    def _merge_parsed_list(self, parsed_list: list[str], field_name: str) -> str:
        field = self.settings_cls.model_fields.get(field_name)
        if field is not None and field.annotation == list[Path]:
            return json.dumps(parsed_list)
        return super()._merge_parsed_list(parsed_list, field_name)


def parse_command(command: type[Command], arguments: Sequence[str]) -> Command:
    """Build a command from command-line arguments.

    Raises:
        UsageError: on an unknown flag (naming the nearest), a missing or malformed value.
        SystemExit: after printing `--help`.
    """
    program = f"fmct {command_name(command)}"
    arguments = [part for argument in arguments for part in one_letter(argument)]

    class Parsed(command):  # type: ignore[valid-type,misc]
        __module__ = command.__module__  # whose name is the command's
        model_config = SettingsConfigDict(cli_prog_name=program)

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **_: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            source: Any = PathsAsGiven(settings_cls, cli_parse_args=list(arguments), formatter_class=OneScreen)
            return init_settings, source

    Parsed.__doc__ = inspect.cleandoc(command.__doc__ or "")
    try:
        parsed: Command = Parsed()
    except SettingsError as error:
        raise argument_error(str(error), program, flags_of(command)) from error
    except ValidationError as error:
        raise validation_error(error, program) from error
    return parsed


def one_letter(argument: str) -> list[str]:
    """Turn `--n` and `--n=5` into what the parser takes for a field of one letter: `-n`, and `-n 5`."""
    match = re.fullmatch(r"--([a-z])(?:=(.*))?", argument)
    return [argument] if match is None else [f"-{match[1]}", *([match[2]] if match[2] is not None else [])]


def names_in(text: str) -> list[str]:
    """Return the names that a flag lists, separated by commas; blanks around them don't count."""
    return [name.strip() for name in text.split(",") if name.strip()]


def command_name(command: type[Command]) -> str:
    """Return the name a command has on the command line: its module's."""
    module = sys.modules[command.__module__]
    name = module.__spec__.name if module.__spec__ else command.__module__
    return name.rsplit(".", 1)[-1].replace("_", "-")


def flags_of(command: type[Command]) -> list[str]:
    """Return the flags that a command knows, `--like-this`."""
    return [flag_of(command, name) for name in command.model_fields]


def flag_of(command: type[Command], name: str) -> str:
    """Return the flag of a field, `--like-this`."""
    return f"--{(command.model_fields[name].alias or name).replace('_', '-')}"


def check_flags(command: Command, action: str, fields_of: Mapping[str, Collection[str]]) -> None:
    """Check that every flag that was given goes with the action that was chosen.

    Args:
        command: as parsed.
        action: the chosen one.
        fields_of: the fields that go with each action; those of none go with all.

    Raises:
        UsageError: naming a flag that doesn't, and the actions that it goes with.
    """
    bound = set().union(*fields_of.values())
    for name in sorted(bound & command.model_fields_set - set(fields_of[action])):
        actions = [one for one, fields in fields_of.items() if name in fields]
        listed = " and ".join(filter(None, (", ".join(actions[:-1]), actions[-1])))
        where = f"the command line of `fmct {command_name(type(command))}`"
        what = f"{flag_of(type(command), name)} doesn't go with {action}"
        raise UsageError(what, where, f"it is a flag of {listed}")


def argument_error(message: str, program: str, flags: Sequence[str]) -> UsageError:
    """Turn argparse's complaint into a UsageError that suggests the nearest flag."""
    message = message.removeprefix("error parsing CLI: ")
    unknown = re.search(r"unrecognized arguments: (\S+)", message)
    if unknown:
        flag = unknown.group(1).split("=")[0]
        guess = nearest(flag, flags)
        hint = f"did you mean {guess}?" if guess else f"see `{program} --help` for the flags there are"
        return UsageError(f"unknown argument {flag}", f"the command line of `{program}`", hint)
    return UsageError(message, f"the command line of `{program}`", f"see `{program} --help`")


def validation_error(error: ValidationError, program: str) -> UsageError:
    """Turn pydantic's first complaint about a flag into a UsageError."""
    first = error.errors()[0]
    flag = ".".join(str(part) for part in first["loc"]).replace("_", "-")
    given = "" if first["type"] == "missing" else f" (given: {first['input']!r})"
    what = "a required argument is missing" if first["type"] == "missing" else first["msg"]
    return UsageError(f"{flag}: {what}{given}", f"the command line of `{program}`", f"see `{program} --help`")


def main(command: type[Command], arguments: Sequence[str] | None = None) -> int:
    """Run a command from the command line and return its exit status.

    Expected errors are printed in three lines; `--debug` adds the traceback.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    return exit_code(lambda: parse_command(command, arguments).run(), debug="--debug" in arguments)


def always() -> bool:
    """Return that this process speaks."""
    return True


def exit_code(work: Callable[[], ExitCode], *, debug: bool, speaks: Callable[[], bool] = always) -> int:
    """Do the work and return its exit status; an expected error is printed in three lines.

    Args:
        work: what to do.
        debug: print the traceback too.
        speaks: asked at an error: whether this process prints it, one of several that fail together.
    """
    try:
        status = int(work())
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # who read our output, `head` say, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.DONE)
    except Exception as error:
        told = error if isinstance(error, FmctError) else file_error(error) if isinstance(error, OSError) else None
        spoken = speaks()
        if debug and (told or not spoken):
            traceback.print_exc()
        if told is None and spoken:
            raise
        if told and spoken:
            print(f"error: {told}", file=sys.stderr)
        return int(told.exit_code if told else ExitCode.FAILED)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
