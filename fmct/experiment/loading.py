"""From YAML files, environment and flags to a validated experiment, with errors that say which key to mend."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from fmct.console.errors import UsageError, nearest, require_file
from fmct.experiment.schema import Experiment


def load_experiment(files: Sequence[Path], flags: Sequence[str] = ()) -> Experiment:
    """Read an experiment: flags over environment over YAML, later files over earlier ones, key by key.

    Args:
        files: YAML files.
        flags: `--section.key value` pairs.

    Raises:
        UsageError: on a missing file, broken YAML, an unknown key (naming the nearest known one) or a wrong value.
    """
    where = ", ".join(str(path) for path in files) + (" and the command line" if flags else "")
    for path in files:
        check_yaml(path)

    class Parsed(Experiment):
        model_config = SettingsConfigDict(
            cli_prog_name="fmct fit",
            cli_exit_on_error=False,
            cli_avoid_json=True,
            cli_hide_none_type=True,
            cli_parse_none_str="null",
            env_parse_none_str="null",
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            flag_source: Any = CliSettingsSource(settings_cls, cli_parse_args=list(flags))
            yaml_source = YamlConfigSettingsSource(settings_cls, yaml_file=list(files), deep_merge=True)
            return flag_source, env_settings, yaml_source

    try:
        parsed = Parsed()
    except SettingsError as error:
        raise flag_error(str(error)) from error
    except ValidationError as error:
        raise value_error(error, where) from error
    return Experiment.model_construct(_fields_set=parsed.model_fields_set, **dict(parsed))


def check_yaml(path: Path) -> None:
    """Check that a file is there and holds a mapping.

    Raises:
        UsageError: when it doesn't, with the line that is broken.
    """
    require_file(path, "the experiment file", "the files that come with fmct are in experiments/")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise UsageError(f"not valid YAML: {getattr(error, 'problem', error)}", where, "mend the line") from error
    if not isinstance(content, dict):
        raise UsageError("the file holds no keys", path, "start from a file in experiments/")


def flag_error(message: str) -> UsageError:
    """Turn the parser's complaint about a flag into a UsageError that names the nearest key."""
    message = message.removeprefix("error parsing CLI: ")
    unknown = re.search(r"unrecognized arguments: (\S+)", message)
    if not unknown:
        return UsageError(message, "the command line", "flags are --section.key value, as in the YAML file")
    flag = unknown.group(1).split("=")[0]
    guess = nearest(flag.lstrip("-"), known_keys())
    return UsageError(
        f"unknown key {flag.lstrip('-')}",
        "the command line",
        f"did you mean --{guess}?" if guess else "flags are --section.key value, as in the YAML file",
    )


def value_error(error: ValidationError, where: str) -> UsageError:
    """Turn pydantic's complaints about the configuration into one UsageError, the first complaint first."""
    errors = error.errors()
    kinds = {"mae", "dino", "classifier", "linear", "attentive"}

    def key_of(loc: Iterable[str | int]) -> str:
        parts = [str(part) for part in loc]
        return ".".join(part for i, part in enumerate(parts) if not (part in kinds and i > 0 and i < len(parts) - 1))

    first = errors[0]
    key = key_of(first["loc"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "extra_forbidden":
        section = key.rsplit(".", 1)[0] + "." if "." in key else ""
        inside = [known for known in known_keys() if known.startswith(section)]
        guess = nearest(key, inside)
        fix = (
            f"did you mean {guess}?"
            if guess
            else f"{section.rstrip('.') or 'the file'} knows: {siblings(inside, section)}"
        )
        return UsageError(f"unknown key {key}{more}", where, fix)
    if first["type"] == "missing":
        return UsageError(f"{key} is missing{more}", where, f"add {key}; experiments/ has complete files to start from")
    message = first["msg"].removeprefix("Value error, ")
    said = first["type"] == "value_error" or isinstance(first["input"], (dict, list))
    given = "" if said else f", not {first['input']!r}"
    return UsageError(
        f"{key + ': ' if key else ''}{message}{given}{more}", where, f"change {key or 'the keys it names'}"
    )


def siblings(keys: Iterable[str], section: str) -> str:
    """List the keys directly below a section."""
    return ", ".join(dict.fromkeys(key.removeprefix(section).split(".")[0] for key in keys))


def known_keys(model: type[BaseModel] = Experiment, prefix: str = "") -> list[str]:
    """List all dotted keys that an experiment may have."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        for part in models_in(field.annotation):
            keys += known_keys(part, f"{prefix}{name}.")
    return list(dict.fromkeys(keys))


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the configuration classes that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def as_record(experiment: Experiment) -> dict[str, Any]:
    """Return an experiment as plain values, the way YAML and checkpoints hold it."""
    record: dict[str, Any] = experiment.model_dump(mode="json")
    return record


def digest(record: dict[str, Any]) -> str:
    """Return a short hash of a configuration, the same for the same values."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """List dotted keys whose values differ: `optimizer.lr: 0.001 -> 0.002`."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {before} -> {after}")
    return found
