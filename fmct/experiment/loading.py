"""From YAML files, environment and flags to a validated experiment, with errors that say which key to mend."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from fmct.console.errors import UsageError, nearest, require_file
from fmct.experiment.flags import known_fields, models_in, parse_flags
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

    given = parse_flags(flags, Experiment)

    class Parsed(Experiment):
        model_config = SettingsConfigDict(env_parse_none_str="null")

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            yaml_source = YamlConfigSettingsSource(settings_cls, yaml_file=list(files), deep_merge=True)
            return init_settings, env_settings, yaml_source

    try:
        parsed = Parsed(**given)
    except SettingsError as error:
        raise UsageError(str(error), "the environment (FMCT_...)", "mend or unset the variable") from error
    except ValidationError as error:
        raise value_error(error, where) from error
    return Experiment.model_construct(_fields_set=parsed.model_fields_set, **dict(parsed))


def check_yaml(path: Path, what: str = "the experiment file") -> dict[str, Any]:
    """Check that a file is there and holds a mapping, and return it.

    Args:
        path: the file.
        what: how errors call it.

    Raises:
        UsageError: when it doesn't, with the line that is broken.
    """
    require_file(path, what, "the files that come with fmct are in experiments/")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise UsageError(f"not valid YAML: {getattr(error, 'problem', error)}", where, "mend the line") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"not UTF-8: {error.reason} at byte {error.start}", path, "save it as UTF-8") from error
    except RecursionError as error:
        raise UsageError("nested too deeply to be an experiment", path, "start from a file in experiments/") from error
    except ValueError as error:  # a date or number that there isn't
        raise UsageError(f"not valid YAML: {error}", path, "put what is no date or number in quotes") from error
    if not isinstance(content, dict):
        raise UsageError("the file holds no keys", path, "start from a file in experiments/")
    strange = key_that_is_no_text(content)
    if strange is not None:
        raise UsageError(
            f"a key is no text: {strange[0]!r}", path, "write keys as they are in experiments/, or in quotes"
        )
    return content


def key_that_is_no_text(content: Any) -> tuple[Any] | None:
    """Return the first key that isn't text, of any mapping within; each is looked at once, whatever names it again."""
    left, seen = [content], set()
    while left:
        value = left.pop()
        if id(value) in seen or not isinstance(value, dict | list):
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    return (key,)
        left.extend(value.values() if isinstance(value, dict) else value)
    return None


def value_error(error: ValidationError, where: str) -> UsageError:
    """Turn pydantic's complaints about the configuration into one UsageError, the first complaint first."""
    errors = error.errors()
    first = errors[0]
    key = key_of(first["loc"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "extra_forbidden":
        *above, unknown = first["loc"]
        known = known_fields(Experiment)
        section = f"{key_of(above)}." if above else ""
        key = f"{section}{unknown}"
        inside = [name for name in known if name.startswith(section)]
        guess = nearest(key, inside)
        if key in known:
            fix = f"leave it out: kind {above[-1]} has no such key"
        elif guess:
            fix = f"did you mean {guess}?"
        else:
            fix = f"{section.rstrip('.') or 'the file'} knows: {siblings(inside, section)}"
        return UsageError(f"unknown key {key}{more}", where, fix)
    if first["type"] == "union_tag_not_found":
        return UsageError(
            f"{key}.kind is missing{more}", where, f"add {key}.kind; experiments/ has complete files to start from"
        )
    if first["type"] == "missing":
        return UsageError(f"{key} is missing{more}", where, f"add {key}; experiments/ has complete files to start from")
    message = first["msg"].removeprefix("Value error, ")
    said = first["type"] == "value_error" or isinstance(first["input"], (dict, list))
    given = "" if said else f", not {first['input']!r}"
    return UsageError(
        f"{key + ': ' if key else ''}{message}{given}{more}", where, f"change {key or 'the keys it names'}"
    )


def key_of(loc: Sequence[str | int]) -> str:
    """Write where pydantic found something wrong as the user writes it: without the kinds that it chose by."""
    key: list[str] = []
    sections: list[type[BaseModel]] = [Experiment]
    for part in map(str, loc):
        chosen = [one for one in sections if "kind" in one.model_fields and one.model_fields["kind"].default == part]
        fields = [one.model_fields[part] for one in sections if part in one.model_fields]
        if chosen and len(sections) > 1:
            sections = chosen
        elif fields:
            key.append(part)
            sections = [inner for field in fields for inner in models_in(field.annotation)]
        elif part.isdecimal():
            key.append(part)
    return ".".join(key)


def siblings(keys: Iterable[str], section: str) -> str:
    """List the keys directly below a section."""
    return ", ".join(dict.fromkeys(key.removeprefix(section).split(".")[0] for key in keys))


def as_record(experiment: Experiment) -> dict[str, Any]:
    """Return an experiment as plain values, the way YAML and checkpoints hold it."""
    record: dict[str, Any] = experiment.model_dump(mode="json")
    return record


def from_record(record: dict[str, Any]) -> Experiment:
    """Read an experiment from what `as_record` gave, maybe an earlier version: keys since then have their defaults.

    Raises:
        ValidationError: when the record holds a key that is no more.
    """

    class Recorded(Experiment):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings,)

    task = record.get("task", {})
    if task.get("kind") == "classifier" and task.get("mode") == "finetune" and task.get("weights") is None:
        record = record | {"task": task | {"mode": "scratch"}}  # what it was called before there was a mode for it
    return Recorded(**record)


def completed(record: dict[str, Any]) -> dict[str, Any]:
    """Add to an older run's record the keys that have come since, with their defaults, which change nothing.

    Args:
        record: as `as_record` gave it, maybe of an earlier version.

    Returns:
        The record with every key of today; as it is, when it holds one that is no more.
    """
    try:
        return as_record(from_record(record))
    except ValidationError:
        return record


def digest(record: dict[str, Any]) -> str:
    """Return a short hash of a configuration, the same for the same values."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]
