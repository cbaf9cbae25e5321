"""Whether the workers of a cluster can do the work: the same fmct, and the scans and the cache to be seen from there.

Asked before anything is sent, so that a missing mount is one clear error and not a reject for every scan.
"""

from __future__ import annotations

import secrets
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmct import __version__
from fmct.console.errors import UsageError
from fmct.data.cache_building import Row
from fmct.data.clusters import Workers
from fmct.data.manifest import scan_path

VERSIONS = "(__import__('fmct').__version__, '%d.%d' % __import__('sys').version_info[:2])"
"""Sent as text, for a worker without fmct can't be sent a function of it."""


@dataclass(frozen=True)
class Sight:
    """What a worker must see.

    Attributes:
        root: the folder that the manifest's paths are relative to.
        rows: some of the manifest, of which one at least must be on disk.
        probe: a file just written into the cache: a folder of the same name on another disk doesn't have it.
    """

    root: Path
    rows: Sequence[Row]
    probe: Path

    def problem(self) -> str:
        """Return what can't be seen from this process, "" when all is well."""
        if not self.root.is_dir():
            return f"don't see the scans' folder {self.root}"
        if not self.probe.exists():
            return f"don't see the cache {self.probe.parent}, or another folder of that name"
        try:
            if self.rows and not any(scan_path(row, self.root).exists() for row in self.rows):
                return f"see the scans' folder {self.root}, but none of the first {len(self.rows)} scans in it"
        except UsageError as error:
            return f"can't tell where scans are: {error.what}; {error.fix}"
        return ""


def check_workers(workers: Workers, root: Path, rows: Sequence[Row], cache: Path) -> None:
    """Check that all workers can do the work.

    Args:
        workers: connected; those of this process or machine need no check.
        root: the folder that the manifest's paths are relative to.
        rows: some rows of the manifest.
        cache: where volumes go.

    Raises:
        UsageError: saying how many can't, why, and what to do.
    """
    refuse(
        [version_problem(answer) for answer in answers(workers, eval, VERSIONS)],
        workers.name,
        f"install fmct {__version__} and Python {python_version()} where the workers run, and start them again",
    )
    probe = cache / f".probe-{secrets.token_hex(8)}"
    try:
        probe.touch()
        found = answers(workers, Sight(root, rows, probe).problem)
    finally:
        probe.unlink(missing_ok=True)
    refuse(
        [f"fail ({type(answer).__name__})" if isinstance(answer, BaseException) else answer for answer in found],
        workers.name,
        "mount the folders there under the same names (--root, --cache), or use workers that see them",
    )


def check_scans(root: Path, rows: Sequence[Row]) -> None:
    """Check that this process finds scans, some of them at least.

    Args:
        root: the folder that the manifest's paths are relative to.
        rows: some rows of the manifest.

    Raises:
        UsageError: when none of them is on disk.
    """
    if rows and not any(scan_path(row, root).exists() for row in rows):
        raise UsageError(
            f"the scans aren't there: neither {rows[0]['path']} nor the {len(rows) - 1} after it",
            root,
            "pass the folder that the manifest's paths are relative to as --root (`fmct index` said which)",
        )


def answers(workers: Workers, function: Any, *arguments: Any) -> list[Any]:
    """Return what each worker answers, or its error."""
    return list(workers.client.run(function, *arguments, on_error="return").values())


def version_problem(answer: Any) -> str:
    """Return what is wrong with a worker's answer about its versions."""
    if isinstance(answer, BaseException):
        return f"can't import fmct ({type(answer).__name__}: {answer})"
    version, python = answer
    if version != __version__:
        return f"have fmct {version}, this is {__version__}"
    if python != python_version():
        return f"have Python {python}, this is {python_version()}"
    return ""


def python_version() -> str:
    """Return the version of Python as far as code and data must agree on it."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def refuse(problems: Sequence[str], where: str, fix: str) -> None:
    """Raise an error for the commonest problem, if any worker has one."""
    counts = Counter(filter(None, problems))
    if counts:
        problem, count = counts.most_common(1)[0]
        raise UsageError(f"{count} of {len(problems)} workers {problem}", where, fix)
