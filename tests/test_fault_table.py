"""Every fault of the table has a test that runs in seconds, and the documentation shows the table as it is."""

from __future__ import annotations

import ast
import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from conftest import REPOSITORY
from fault_table import FAULTS, in_short, markdown
from packaging.requirements import Requirement

TESTS = Path(__file__).resolve().parent
COMPROMISED = {"lightning": ("2.6.2", "2.6.3")}
"""Versions that carried malware."""


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_a_test(fault: str) -> None:
    fast = []
    for test in FAULTS[fault]:
        file, _, name = test.partition("::")
        functions = {node.name: node for node in ast.parse((TESTS / file).read_text()).body if hasattr(node, "name")}
        assert name in functions, f"{file} has no {name}"
        marks = [ast.unparse(mark) for mark in getattr(functions[name], "decorator_list", [])]
        fast.append("pytest.mark.slow" not in marks)
    assert any(fast), "a test that CI runs"


def test_documentation_shows_the_table() -> None:
    assert in_short() in (REPOSITORY / "README.md").read_text()
    assert markdown() in (REPOSITORY / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("name", COMPROMISED)
def test_compromised_dependency(name: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (required,) = [one for one in map(Requirement, project["dependencies"]) if one.name == name]
    pinned = (REPOSITORY / "constraints.txt").read_text().splitlines()
    (pin,) = [line.split("==")[1].split()[0] for line in pinned if line.startswith(f"{name}==")]
    for version in COMPROMISED[name]:
        assert not required.specifier.contains(version)
        assert pin != version
        assert importlib.metadata.version(name) != version
    assert required.specifier.contains(pin)
