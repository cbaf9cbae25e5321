"""Scans that do something to the process that reads them: a sitecustomize.py makes them do it in child processes.

What they do is in $FMCT_TEST_DEEDS, as JSON: {"name.nii.gz": "abort"}; "*" stands for all others.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from conftest import REPOSITORY
from index_run import index
from synthetic_series import head_like, stacked, write_series

from fmct.cli import main
from fmct.data.volumes import VolumeCache

SMALL = ["--spacing-mm", "5", "--no-head-crop"]
SITECUSTOMIZE = """
import ctypes, json, os, sys, time
DEEDS = json.loads(os.environ.get("FMCT_TEST_DEEDS", "{}"))

def do(deed):
    if deed == "abort":
        os.abort()
    if deed == "segfault":
        ctypes.string_at(0)
    if deed == "hang":
        ctypes.PyDLL(None).sleep(1000)  # native code that keeps the interpreter's lock: no other thread runs
    if deed == "error":
        raise ZeroDivisionError("DOE^JOHN")
    if deed == "full disk":
        raise OSError(28, "No space left on device")
    if deed.startswith("sleep"):
        time.sleep(float(deed.split()[1]))

if "fmct.data.guarded_worker" in sys.orig_argv and DEEDS:
    from fmct.data import cache_building
    load, make = cache_building.load_nifti, cache_building.make_volume
    def load_nifti(path):
        name = path.name
        with open(os.environ["FMCT_TEST_LOG"], "a") as log:
            log.write(name + "\\n")
        do(DEEDS.get(name, DEEDS.get("*", "")))
        return load(path)
    cache_building.load_nifti = load_nifti
if "distributed.cli.dask_worker" in sys.orig_argv or any("dask" in part for part in sys.orig_argv):
    if DEEDS.get("fmct") == "missing":
        sys.modules["fmct"] = None
    elif DEEDS.get("fmct") == "old":
        import fmct
        fmct.__version__ = "0.0.1"
    if "hidden" in DEEDS:
        import pathlib
        exists, is_dir = pathlib.Path.exists, pathlib.Path.is_dir
        pathlib.Path.exists = lambda path, **more: not str(path).startswith(DEEDS["hidden"]) and exists(path, **more)
        pathlib.Path.is_dir = lambda path, **more: not str(path).startswith(DEEDS["hidden"]) and is_dir(path, **more)
"""


def write_cohort(folder: Path, scans: int = 10) -> Path:
    """Write NIfTI scans and a folder with two DICOM series, and return their manifest."""
    for number in range(scans):
        image = nib.Nifti1Image(head_like(seed=number).T, np.diag([-4.5, -6, 8, 1]))
        (folder / "in").mkdir(parents=True, exist_ok=True)
        nib.save(image, folder / "in" / f"n{number:02d}.nii.gz")
    for name, seed in (("A", 100), ("B", 101)):
        names = [f"{name}{k}" for k in range(12)]
        write_series(folder / "in" / "both", head_like(seed=seed), stacked(12), names=names)
    assert index(folder / "in", "--all-series") == 0
    return folder / "m.csv"


def environment(folder: Path, **deeds: str) -> dict[str, str]:
    """Return the environment in which scans do their deeds; `folder/deeds.log` says which were read."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    names = {name if name in {"*", "fmct", "hidden"} else f"{name}.nii.gz": deed for name, deed in deeds.items()}
    return os.environ | {
        "PYTHONPATH": f"{folder / 'site'}{os.pathsep}{REPOSITORY}",
        "FMCT_TEST_DEEDS": json.dumps(names),
        "FMCT_TEST_LOG": str(folder / "deeds.log"),
    }


def command(manifest: Path, cache: Path, *arguments: str) -> list[str]:
    """Return the command line of preprocessing."""
    return [sys.executable, "-m", "fmct.cli", "preprocess", str(manifest), "--cache", str(cache), *SMALL, *arguments]


def preprocess(
    manifest: Path, cache: Path, *arguments: str, env: dict[str, str] | None = None, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run preprocessing in a process of its own."""
    line = command(manifest, cache, *arguments)
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=seconds, check=False)


def finish(manifest: Path, cache: Path, *arguments: str) -> None:
    """Do in this process what a run has left over, and check that what it has done isn't done again."""
    made = {path: path.stat().st_mtime_ns for path in cache.rglob("*.b2nd")}
    assert main(["preprocess", str(manifest), "--cache", str(cache), *SMALL, "--workers", "0", *arguments]) == 0
    for path, changed in made.items():
        assert path.stat().st_mtime_ns == changed


def reads(folder: Path) -> Counter[str]:
    """Return how often each NIfTI file was read."""
    log = folder / "deeds.log"
    return Counter(log.read_text().split()) if log.exists() else Counter()


def contents(cache: Path) -> dict[str, str]:
    """Return the hash of every file that a cache holds, by name; of the index, of its rows."""
    opened = VolumeCache.open(cache)
    found = {
        str(path.relative_to(opened.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in opened.folder.rglob("*")
        if path.is_file() and path.name not in {"index.parquet", ".lock"}
    }
    return found | {"index": opened.index.to_json()}


def reject_codes(cache: Path) -> dict[str, tuple[str, str]]:
    """Return code and detail of each reject, by the name of its file."""
    table = VolumeCache.open(cache).folder / "rejects.csv"
    rows = pd.read_csv(table).itertuples() if table.exists() else []
    return {Path(row.path).name.removesuffix(".nii.gz"): (row.code, row.detail) for row in rows}
