"""Fixtures shared by the tests: the real data set where there is one, tiny cohorts and archives."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from index_tree import Work, write_tree

from fmct.data.preprocessing import IsotropicSettings
from fmct.data.volumes import Volume, VolumeCache

REPOSITORY = Path(__file__).resolve().parent.parent
TIMED = ["train/scans_per_second", "train/data_wait", "train/tflop_per_scan", "train/tflops", "train/mfu"]
"""Columns of metrics.csv that two runs of the same experiment don't share."""


def is_sweep(path: Path) -> bool:
    """Whether a file in experiments/ is a grid of runs rather than one run."""
    return "\ngrid:" in path.read_text()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real scans, label files and golden numbers, outside the repository."""
    folder = (REPOSITORY / os.environ.get("FMCT_SHARED", "../shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set FMCT_SHARED to run this test")
    return folder


@pytest.fixture(scope="session")
def shared_scans(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real scans, unpacked: dicom/NAME/..., dicom/single_files/*.dcm, nifti/*.nii.gz."""
    root = tmp_path_factory.mktemp("shared_scans")
    for folder in sorted((shared / "data" / "dicom").iterdir()):
        for archive in folder.glob("*.tar.xz"):
            with tarfile.open(archive) as tar:
                tar.extractall(root / "dicom", filter="data")
    shutil.copytree(shared / "data" / "dicom" / "single_files", root / "dicom" / "single_files")
    shutil.copytree(shared / "data" / "nifti", root / "nifti")
    for path in [root, *root.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)
    return root


@dataclass(frozen=True)
class TinyCohort:
    """Scans that a network can learn from in seconds: a bright block on one side means ICH."""

    manifest: Path
    cache: Path


def make_cohort(folder: Path, scans: int = 24, side: int = 24) -> TinyCohort:
    """Write a manifest and a cache of blobs: odd scans have ICH, every second pair MidlineShift."""
    rng = np.random.default_rng(0)
    cache = VolumeCache.create(folder / "cache", IsotropicSettings(spacing_mm=9.0, shape_voxels=side))
    z, y, x = np.mgrid[:side, :side, :side] - (side - 1) / 2
    rows = []
    for number in range(scans):
        hu = rng.normal(30, 4, (side, side, side))
        if number % 2:
            third = side // 3
            hu[third : 2 * third, third : 2 * third, 2 : side // 2] = 75
        hu[x**2 + y**2 + z**2 > (side * 0.45) ** 2] = -1024
        scan_id = f"scan{number:03d}"
        cache.write(scan_id, Volume(hu.astype(np.int16), np.diag([9.0, 9.0, 9.0, 1.0])))
        rows.append(
            {
                "scan_id": scan_id,
                "path": f"{scan_id}.nii.gz",
                "format": "nifti",
                "patient_id": f"patient{number // 2:03d}",  # two scans of each patient, one with and one without
                "split": "train" if number < scans // 2 else "val" if number < scans * 3 // 4 else "test",
                "site": "site_a" if number % 4 < 2 else "site_b",
                "label:ICH": number % 2,
                "label:MidlineShift": (number // 2) % 2 if number % 5 else "",
            }
        )
    cache.save()
    manifest = folder / "manifest.csv"
    pd.DataFrame(rows).to_csv(manifest, index=False)
    return TinyCohort(manifest, folder / "cache")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCohort:
    """A cohort of 24 tiny volumes, ready for training."""
    return make_cohort(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An archive in small, to be indexed."""
    return write_tree(tmp_path / "in")


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """What counts how much of an archive `fmct index` looks at."""
    return Work(monkeypatch)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Run all with one thread, as processes beside this one: with another number, sums differ in the last bit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
