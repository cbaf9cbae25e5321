"""An archive in small, and how much work `fmct index` has with it."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from index_run import index
from synthetic_series import head_like, stacked, write_series

from fmct.data import archive, selection

SERIES = 6


def write_tree(root: Path) -> Path:
    """Write six studies of a thin and a thick series, some with flaws, a NIfTI file, and what else lies about."""
    for number in range(SERIES):
        study = {"StudyInstanceUID": f"1.2.{number}", "PatientID": f"P{number}"}
        hu, folder = head_like(seed=number), root / f"p{number}"
        write_series(folder / "thin", hu, stacked(12), SeriesInstanceUID=f"1.3.{number}", **study)
        write_series(folder / "thick", hu[:9], stacked(9, 12.0), SeriesInstanceUID=f"1.4.{number}", **study)
    shutil.copytree(root / "p0", root / "q0")
    (root / "p1" / "thin" / "006.dcm").unlink()
    (root / "p2" / "cut.dcm").write_bytes((root / "p2" / "thin" / "000.dcm").read_bytes()[:300])
    (root / "notes").write_text("x" * 300)
    nib.save(nib.Nifti1Image(head_like().T, np.diag([4.5, 6, 8, 1])), root / "n.nii.gz")
    return root


class Work:
    """Counts which files are looked at, and how many studies are judged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: Counter[str] = Counter()
        self.judged = 0
        look, one = archive.look_at, selection.StudyJob._one

        def counting(path: Path, key: bytes, pixels: bool = False) -> Any:
            self.read[path.name] += 1
            return look(path, key, pixels)

        def judging(job: Any, study: Any) -> Any:
            self.judged += 1
            return one(job, study)

        monkeypatch.setattr(archive, "look_at", counting)
        monkeypatch.setattr(selection.StudyJob, "_one", judging)

    def of(self, root: Path, *arguments: str, **more: str) -> tuple[int, int]:
        """Index, and return how many files were read and how many studies judged."""
        self.read.clear()
        self.judged = 0
        index(root, *arguments, **more)
        return self.read.total(), self.judged


def tables(root: Path) -> tuple[bytes, bytes]:
    return (root.parent / "m.csv").read_bytes(), (root.parent / "rejects.csv").read_bytes()


def fresh_tables(root: Path, *arguments: str, **more: str) -> tuple[bytes, bytes]:
    """What a run that knows of no other writes."""
    other = root.parent / "fresh.csv"
    other.with_name("fresh.csv.headers.sqlite").unlink(missing_ok=True)
    kept = (root.parent / "rejects.csv").read_bytes()
    index(root, *arguments, "--out", str(other), **more)
    fresh = other.read_bytes(), (root.parent / "rejects.csv").read_bytes()
    (root.parent / "rejects.csv").write_bytes(kept)
    return fresh


def everything(root: Path) -> int:
    return sum(1 for path in root.rglob("*") if path.is_file())
