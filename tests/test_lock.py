"""requirements.lock: every package that fmct needs, at the version of constraints.txt, with hashes."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = (REPOSITORY / "requirements.lock").read_text()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def pins(text: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def test_the_lock_has_the_versions_of_the_constraints_with_hashes() -> None:
    entries = re.split(r"\n(?=[A-Za-z0-9])", LOCK.partition("\n#    make lock\n")[2].strip())
    assert len(entries) > 100
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]
    constraints = pins((REPOSITORY / "constraints.txt").read_text())
    assert pins(LOCK).items() <= constraints.items()
    assert "torch" in constraints
    assert not {"torchvision", "torchaudio"} & constraints.keys()


def test_everything_that_is_needed_is_locked() -> None:
    extras = PROJECT["optional-dependencies"]
    needed = [*PROJECT["dependencies"], *extras["dev"], *extras["slurm"], *extras["onnx"], *extras["hub"]]
    locked, missing = pins(LOCK), []
    for line in needed:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if name in {"fmct", "torch"}:
            continue
        if name not in locked or not requirement.specifier.contains(locked[name]):
            missing.append(line)
    assert missing == []


@pytest.mark.parametrize(
    ("tool", "code", "expected"),
    [
        ("echo 'No known vulnerabilities found'", 0, "No known"),
        ("echo 'idna Dependency not found on PyPI and could not be audited: idna (3.20)'", 0, "1 packages weren't"),
        ("echo 'Found 2 known vulnerabilities in 1 package'; exit 1", 1, "Found 2"),
        ("echo 'ConnectionError: Max retries exceeded with url'; exit 1", 0, "can't be reached"),
        ("echo 'Traceback: KeyError'; exit 1", 1, "the tool failed"),
    ],
)
def test_the_audit_fails_unless_only_the_network_is_to_blame(
    tmp_path: Path, tool: str, code: int, expected: str
) -> None:
    fake = tmp_path / "pip-audit"
    fake.write_text(f"#!/bin/sh\n{tool}\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    done = subprocess.run(
        ["bash", REPOSITORY / ".ci" / "audit", fake], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == code, done
    assert expected in done.stdout + done.stderr
