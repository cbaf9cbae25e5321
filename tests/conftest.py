"""Fixtures shared by the tests: the real data set where there is one."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


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
