"""`fmct index` as the tests run it, and its tables as they look at them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fmct.cli import main
from fmct.data.manifest import read_manifest

NO_PIXEL_RULES = "NOT_A_HEAD,IMPLAUSIBLE_HU"
"""The tests' ellipsoids have no skull."""


def index(root: Path, *arguments: str, skip: str = NO_PIXEL_RULES) -> int:
    """Index a folder; manifest and key lie beside it."""
    folder = root.parent
    where = [str(root), "--out", str(folder / "m.csv"), "--key-file", str(folder / "key"), "--skip-rules", skip]
    return main(["index", *where, *arguments])


def manifest(folder: Path, name: str = "m.csv") -> pd.DataFrame:
    """Return the manifest by path."""
    return read_manifest(folder / name).set_index("path", drop=False)


def reject_rows(folder: Path) -> pd.DataFrame:
    """Return rejects.csv, everything as text."""
    return pd.read_csv(folder / "rejects.csv", dtype=str, keep_default_na=False)


def rejects(folder: Path) -> dict[str, str]:
    """Return the code of each rejected path."""
    return reject_rows(folder).set_index("path")["code"].to_dict()
