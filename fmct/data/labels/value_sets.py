"""Value sets: which diagnosis codes mean a finding, and which leave it open. ICD-10-CM, and ICD-9-CM where listed.

A file has, for each label, `codes` (prefixes that mean it), `ambiguous` (prefixes that neither mean nor exclude it:
sequelae, history of, unspecified) and `includes` (labels that imply it). Dots and case don't matter; `?` stands for any
one character. The longest prefix that fits a code decides, of two equally long ones the ambiguous. A code that means an
included label means this one too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, ValidationError, field_validator

from fmct.console.errors import UsageError, nearest, require_file
from fmct.experiment.config import Config

SHIPPED = Path(__file__).with_name("head_ct_value_sets.yaml")
ICD = re.compile(r"[A-Z][0-9][0-9A-Z]{1,5}|[0-9]{3,5}")


class ValueSet(Config):
    """The codes of one label."""

    meaning: str = Field(description="what the label says, in words")
    codes: tuple[str, ...] = Field(min_length=1, description="prefixes of codes that mean it")
    ambiguous: tuple[str, ...] = Field((), description="prefixes of codes that leave it open")
    includes: tuple[str, ...] = Field((), description="labels that imply this one")

    @field_validator("codes", "ambiguous", mode="before")
    @classmethod
    def _lists_within_lists(cls, prefixes: Any) -> Any:
        return list(flat(prefixes)) if isinstance(prefixes, list) else prefixes

    @field_validator("codes", "ambiguous")
    @classmethod
    def _prefixes(cls, prefixes: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in prefixes:
            if not re.fullmatch(r"[A-Z0-9][A-Z0-9?]*", normalized(prefix)):
                raise ValueError(f"{prefix!r} is no prefix of a code: letters, digits, dots and ? only")
        return prefixes


def flat(entries: Iterable[Any]) -> Iterator[Any]:
    """Yield the entries of a list and of the lists in it: a value set can share another's by a YAML anchor."""
    for entry in entries:
        if isinstance(entry, list):
            yield from flat(entry)
        else:
            yield entry


def normalized(code: str) -> str:
    """Return a code without dots and blanks, in capitals: `i61.9 ` and `I619` are one."""
    return code.strip().upper().replace(".", "")


def read_value_sets(path: Path = SHIPPED) -> dict[str, ValueSet]:
    """Read a value-set file.

    Raises:
        UsageError: when it is missing or no valid YAML, a key is unknown, a prefix is none, or an included label is
            missing or includes others itself.
    """
    require_file(path, "the value-set file", "leave --value-sets out to use the one that comes with fmct")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not content:
            raise UsageError("the file holds no value sets", path, f"write it like {SHIPPED}")
        sets = {str(name): value_set(str(name), entry, path) for name, entry in content.items()}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise UsageError(f"not valid YAML: {getattr(error, 'problem', error)}", where, "mend the line") from error
    for name, one in sets.items():
        for other in one.includes:
            if other not in sets or sets[other].includes:
                raise UsageError(
                    f"{name} includes {other}, which " + ("includes others itself" if other in sets else "isn't there"),
                    path,
                    "list all labels that imply it by name",
                )
    return sets


def value_set(name: str, entry: Any, path: Path) -> ValueSet:
    """Read one value set.

    Raises:
        UsageError: naming the label and the key that is wrong.
    """
    try:
        return ValueSet.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join([name, *(str(part) for part in first['loc'])])}: {first['msg']}"
        raise UsageError(what, path, f'write it like {SHIPPED}; put numbers in quotes ("430")') from error


def chosen(sets: Mapping[str, ValueSet], names: Sequence[str], source: Path) -> list[str]:
    """Return the labels to make: those named, or all.

    Raises:
        UsageError: when there is no such label.
    """
    for name in names:
        if name not in sets:
            guess = nearest(name, sets)
            fix = f"did you mean {guess}?" if guess else f"it has {', '.join(sets)}"
            raise UsageError(f"no value set for {name}", source, fix)
    return list(names) or list(sets)


def longest_fit(prefixes: Sequence[str], codes: Sequence[str]) -> NDArray[np.int64]:
    """Return the length of the longest prefix that each code, normalized, begins with; 0 where none fits."""
    lengths = np.zeros(len(codes), np.int64)
    for prefix in {normalized(prefix) for prefix in prefixes}:
        pattern = re.compile(prefix.replace("?", "."))
        fitting = np.array([pattern.match(code) is not None for code in codes], bool)
        lengths[fitting] = np.maximum(lengths[fitting], len(prefix))
    return lengths


def classified(
    sets: Mapping[str, ValueSet], codes: Sequence[str]
) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Say what each code means for each label.

    Args:
        sets: the value sets.
        codes: C codes as written; what has not the form of an ICD code means nothing.

    Returns:
        For each label, two (C,) masks: codes that mean it, and codes that leave it open.
    """
    plain = [normalized(code) for code in codes]
    plain = [code if ICD.fullmatch(code) else "" for code in plain]
    own = {}
    for name, one in sets.items():
        code, leaves_open = longest_fit(one.codes, plain), longest_fit(one.ambiguous, plain)
        own[name] = (code > leaves_open, (leaves_open >= code) & (leaves_open > 0))
    result: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}
    for name, one in sets.items():
        members = [own[name], *(own[other] for other in one.includes)]
        means = np.any([member[0] for member in members], axis=0)
        result[name] = (means, np.any([member[1] for member in members], axis=0) & ~means)
    return result
