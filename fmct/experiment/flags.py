"""The experiment's flags: every key of the experiment file, whichever task or head it belongs to.

Not left to pydantic-settings: where two members of a union have a field of one name (`task.head` of the classifier and
of self-distillation), it knows the keys of the first only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from fmct.console.errors import UsageError, nearest


def parse_flags(flags: Sequence[str], model: type[BaseModel]) -> dict[str, Any]:
    """Turn `--section.key value` and `--section.key=value` into nested values, as a YAML file would hold them.

    A flag without a value is `true`; lists are `a,b` or `[a, b]`, and one element may stand for a list of one; `null`
    is nothing.

    Args:
        flags: the command line.
        model: the class that says which keys there are.

    Raises:
        UsageError: on a word that belongs to no flag, an unknown key (naming the nearest) or broken YAML.
    """
    known = known_fields(model)
    values: dict[str, Any] = {}
    words = list(flags)
    while words:
        flag, equals, text = words.pop(0).partition("=")
        if not flag.startswith("--"):
            raise UsageError(f"{flag} belongs to no flag", "the command line", "flags are --section.key value")
        key = flag.removeprefix("--")
        if key not in known:
            guess = nearest(key, known)
            fix = f"did you mean --{guess}?" if guess else "flags are --section.key value, as in the YAML file"
            raise UsageError(f"unknown key {key}", "the command line", fix)
        if not equals:
            text = words.pop(0) if words and not words[0].startswith("--") else "true"
        section = values
        *path, name = key.split(".")
        for part in path:
            section = section.setdefault(part, {})
        section[name] = value_of(text, key, known[key])
    return values


def value_of(text: str, key: str, annotations: Sequence[Any]) -> Any:
    """Read one value as YAML; a field that holds only lists takes `a,b` and a single element too."""
    lists_only = all(is_list(annotation) for annotation in annotations)
    try:
        value = yaml.safe_load(text)
        if isinstance(value, str) and "," in value and any(is_list(a) or has_list(a) for a in annotations):
            value = [yaml.safe_load(part) for part in value.split(",")]
    except yaml.YAMLError as error:
        raise UsageError(
            f"{key}: {text!r} can't be read", "the command line", "quote the value for the shell"
        ) from error
    if lists_only and value is not None and not isinstance(value, list):
        return [value]
    return value


def known_fields(model: type[BaseModel], prefix: str = "") -> dict[str, list[Any]]:
    """List all dotted keys below a class with the annotations that they have in the members of its unions."""
    fields: dict[str, list[Any]] = {}
    for name, field in model.model_fields.items():
        fields.setdefault(prefix + name, []).append(field.annotation)
        for part in models_in(field.annotation):
            for key, inner in known_fields(part, f"{prefix}{name}.").items():
                fields.setdefault(key, []).extend(inner)
    return fields


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the configuration classes that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def alternatives(annotation: Any) -> list[Any]:
    """Return the members of a union without None, or the annotation itself."""
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return [one for part in get_args(annotation) if part is not NoneType for one in alternatives(part)]
    return [annotation]


def is_list(annotation: Any) -> bool:
    """Say whether a field can hold nothing but lists (or null)."""
    return all(get_origin(one) in {tuple, list} for one in alternatives(annotation))


def has_list(annotation: Any) -> bool:
    """Say whether a field may hold a list."""
    return any(get_origin(one) in {tuple, list} for one in alternatives(annotation))


def literals_in(annotations: Sequence[Any]) -> list[Any]:
    """List the fixed values that fields may hold."""
    allowed = [one for annotation in annotations for one in alternatives(annotation)]
    return [value for one in allowed if get_origin(one) is Literal for value in get_args(one)]
