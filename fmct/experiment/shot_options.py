"""What `fmct fewshot` is told in one word: numbers of patients, strengths of a penalty, groups of sites."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fmct.console.command import names_in
from fmct.console.errors import UsageError
from fmct.experiment.combination import is_file_name


def numbers_of_patients(text: str) -> list[int]:
    """Read --shots, in order, each once.

    Raises:
        UsageError: when it holds anything but numbers from 1.
    """
    try:
        shots = sorted({int(word) for word in names_in(text)})
    except ValueError:
        shots = []
    if not shots or shots[0] < 1:
        raise UsageError(f"{text!r} are no numbers of patients", "--shots", "as in --shots 8,16,32,64")
    return shots


def penalties(text: str) -> list[float]:
    """Read --c.

    Raises:
        UsageError: when it holds anything but finite numbers above 0.
    """
    try:
        values = [float(word) for word in names_in(text)]
    except ValueError:
        values = []
    if not values or not all(0 < value < math.inf for value in values):
        raise UsageError(f"{text!r} are no strengths of a penalty", "--c", "as in --c 0.01 or --c 0.001,0.01,0.1")
    return values


def groups_of_sites(texts: Sequence[str]) -> dict[str, list[str]]:
    """Read every --group: the sites of each, by its name.

    Raises:
        UsageError: when one isn't NAME=SITE+SITE, or a name comes twice.
    """
    groups: dict[str, list[str]] = {}
    for text in texts:
        name, _, listed = text.partition("=")
        sites = [site for site in listed.split("+") if site]
        if not is_file_name(name) or not sites or name in groups:
            raise UsageError("this is no group of sites", f"--group {text}", "write --group NAME=SITE+SITE, each once")
        groups[name] = sites
    return groups
