"""What a run was made of and with: code, packages, machine, seed, and checksums of its scans.

RUN/history.json lists the parts of a run, one for each time that it was started or went on, and what changed since.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fmct import __version__
from fmct.console.errors import UsageError
from fmct.console.files import sha256, write_text_atomically
from fmct.data.datamodule import ScanDataModule
from fmct.experiment.schema import Experiment

HISTORY = "history.json"
PACKAGES = ("torch", "lightning", "monai", "numpy", "pydicom", "nibabel", "blosc2", "pydantic")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def describe_environment(**facts: Any) -> dict[str, Any]:
    """Return versions, machine, git revision and the facts given."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "fmct": __version__,
        "git": git("describe", "--always", "--dirty"),
        "revision": git("rev-parse", "HEAD"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": gpu or f"CPU ({torch.get_num_threads()} threads)",
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    } | facts


def git(*words: str) -> str | None:
    """Ask git about the revision of this code; None where it isn't in a repository, or there is no git."""
    folder = str(Path(__file__).parent)
    try:
        said = subprocess.run(  # noqa: S603 - fixed words
            ["git", "-C", folder, *words],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    return said.stdout.strip() or None


def details() -> dict[str, Any]:
    """Return what else of the environment can change numbers: all packages, libraries, kinds of arithmetic."""
    packages = {one.name: one.version for one in importlib.metadata.distributions()}
    cuda = torch.version.cuda
    return {
        "all_packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": cuda,
        "cudnn": torch.backends.cudnn.version() if cuda else None,  # type: ignore[no-untyped-call]
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "environment": {name: os.environ[name] for name in THREADS if name in os.environ},
    }


def inputs_of(experiment: Experiment, data: ScanDataModule) -> dict[str, Any]:
    """Return the seed, and checksums of all that a run learns from.

    Args:
        experiment: what is run.
        data: its scans; the checksums of their volumes are in the cache's index, so none is read for it.
    """
    weights = experiment.task.weights
    sums = [] if weights is None else [p for p in (weights / "weights", weights) if (p / "SHA256SUMS").is_file()]
    scans = [*data.train.scan_ids, *(data.val.scan_ids if data.val else [])]
    found: dict[str, Any] = {
        "seed": experiment.seed,
        "manifest_sha256": sha256(experiment.data.manifest),
        "scans_sha256": hashlib.sha256("\n".join(scans).encode()).hexdigest(),
        "weights_sha256": sha256(sums[0] / "SHA256SUMS") if sums else None,
    }
    if experiment.data.features:
        return found | {"features_sha256": [sha256(path) for path in experiment.data.features]}
    checksums = data.cache.index["checksum"].reindex(pd.Index(scans)).astype(str)
    return found | {
        "cache": data.cache.settings.folder_name(),
        "volumes_sha256": hashlib.sha256("\n".join(checksums).encode()).hexdigest(),
    }


def record_part(folder: Path, **facts: Any) -> None:
    """Add a part to a run's history.

    Args:
        folder: the run's.
        facts: what is to be known of it.
    """
    parts = [*read_history(folder), describe_environment(**details(), **facts)]
    write_text_atomically(folder / HISTORY, json.dumps(parts, indent=2) + "\n")


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read the parts of a run, the first one first; none, where it is older than this file.

    Raises:
        UsageError: when it isn't such a list.
    """
    file = folder / HISTORY
    if not file.is_file():
        return []
    try:
        parts = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"history.json isn't JSON ({error})", file, "restore or delete it") from error
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise UsageError("history.json is no list of parts", file, "restore or delete it")
    return parts
