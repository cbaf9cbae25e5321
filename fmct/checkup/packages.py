"""Python and the packages: present, new enough, and none that is known to do harm."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from fmct.checkup.finding import Finding, ok

KNOWN_BAD: Mapping[str, tuple[str, str]] = {
    "lightning": ("==2.6.2,==2.6.3", "these two releases were malicious: change every secret that this machine knew"),
    "pytorch-lightning": ("==2.6.2,==2.6.3", "these two releases were malicious: change every secret it knew"),
    "torch": ("<2.6", "torch.load(weights_only=True) could run code (CVE-2025-32434)"),
    "pydicom": ("<3.0.2", "a crafted DICOMDIR could name files outside its folder (CVE-2026-32711)"),
    "monai": ("<1.5.1", "archives and checkpoints could write anywhere or run code (CVE-2025-58755, CVE-2025-58757)"),
    "jinja2": ("<3.1.6", "a template could leave its sandbox (CVE-2025-27516)"),
}
"""Versions not to be used: which, separated by commas, and why."""

UNWANTED: Mapping[str, str] = {"torchvision": "it brings another torch, or breaks `import lightning` when they differ"}
HERE = ["torch", "lightning", "monai", "numpy", "pydicom", "blosc2"]

Installed = Callable[[str], str | None]


def installed_version(name: str) -> str | None:
    """Return the version of a package, None where it isn't installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_packages(installed: Installed = installed_version) -> Iterator[Finding]:
    """Look at Python and all packages that fmct needs.

    Args:
        installed: gives the version of a package.
    """
    here = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] < (3, 14)
    yield ok("python", here) if fits else Finding("python", "problem", f"{here}; fmct needs 3.11 to 3.13", "make setup")
    wrong = [*harmful(installed), *too_old(installed)]
    yield from wrong
    if not wrong:
        versions = ", ".join(f"{name} {installed(name)}" for name in HERE)
        yield ok("packages", f"{versions}; none too old or known to be bad")
    for name, why in UNWANTED.items():
        if found := installed(name):
            yield Finding(name, "warning", f"{found} is installed: {why}", f"pip uninstall {name}")


def harmful(installed: Installed) -> Iterator[Finding]:
    """Find versions that are known to do harm."""
    for name, (bad, why) in KNOWN_BAD.items():
        found = installed(name)
        if found and any(SpecifierSet(one).contains(found, prereleases=True) for one in bad.split(",")):
            yield Finding(name, "problem", f"{found}: {why}", f"pip install -c constraints.txt --upgrade {name}")


def too_old(installed: Installed) -> Iterator[Finding]:
    """Find packages that are missing, or not of the versions that fmct asks for."""
    for line in requires("fmct") or ():
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = installed(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            said = f"{found or 'missing'}; fmct needs {requirement.specifier or 'it'}"
            yield Finding(requirement.name, "problem", said, f"pip install '{requirement.name}{requirement.specifier}'")
