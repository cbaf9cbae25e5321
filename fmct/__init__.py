"""fmct: head-CT foundation models, from a scan on disk to an honest report.

Importing the package is cheap: torch is imported by the first call that needs it.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fmct.models.packaged import PackagedModel

try:
    __version__ = version("fmct")  # of the newest git tag when it was installed
except PackageNotFoundError:  # run from a folder that was never installed
    __version__ = "0+unknown"
__all__ = ["__version__", "load"]


def load(package: str | Path, *, allow_partial: bool = False) -> PackagedModel:
    """Load a weight package, ready to use.

    Args:
        package: folder holding model.safetensors, config.json and SHA256SUMS.
        allow_partial: accept missing or unexpected tensors, listing them in a warning.

    Returns:
        The model in evaluation mode on the CPU: `model.tokens(x)`, `model.embed(path)`, `model.config`.

    Raises:
        UsageError: when a file is missing, a checksum is wrong or the tensors don't fit the configuration.
    """
    from fmct.models.packaged import load_package

    return load_package(Path(package), allow_partial=allow_partial)
