"""A second run of `fmct index` reads only what changed, and always ends like a fresh one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from index_run import NO_PIXEL_RULES, index, manifest, rejects
from index_tree import SERIES, Work, everything, fresh_tables, tables
from synthetic_series import head_like, stacked, write_series


def test_nothing_is_read_twice(tree: Path, work: Work) -> None:
    assert work.of(tree) == (everything(tree), SERIES + 1)
    first = tables(tree)
    assert work.of(tree) == (0, 0)
    assert tables(tree) == first
    thin = [f"in/p{number}/{'thick' if number == 1 else 'thin'}" for number in range(SERIES)]
    assert manifest(tree.parent)["path"].tolist() == ["in/n.nii.gz", *thin]
    assert set(rejects(tree.parent).values()) == {"NOT_CHOSEN", "GAP", "UNREADABLE"}
    assert work.of(tree, "--fresh") == (everything(tree), SERIES + 1)
    assert tables(tree) == first


def change_file(root: Path) -> None:
    path = root / "p3" / "thin" / "004.dcm"
    path.write_bytes(path.read_bytes()[:300])


def touch_file(root: Path) -> None:
    os.utime(root / "p3" / "thin" / "004.dcm")


def add_series(root: Path) -> None:
    write_series(root / "p3" / "new", head_like(24), stacked(24, 4.0), StudyInstanceUID="1.2.3", PatientID="P3")


def add_study(root: Path) -> None:
    write_series(root / "p9" / "new", head_like(), stacked(12))


def remove_slice(root: Path) -> None:
    (root / "p3" / "thin" / "004.dcm").unlink()


def remove_study(root: Path) -> None:
    shutil.rmtree(root / "p3")


def remove_first_of_copies(root: Path) -> None:
    shutil.rmtree(root / "p0")


def rename_file(root: Path) -> None:
    (root / "p3" / "thin" / "004.dcm").rename(root / "p3" / "thin" / "first")


def rename_folder(root: Path) -> None:
    (root / "p3").rename(root / "p33")


def swap_files(root: Path) -> None:
    one, other, aside = (root / "p3" / "thin" / name for name in ("003.dcm", "004.dcm", "x"))
    os.utime(one, (1, 1))
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def change_nifti(root: Path) -> None:
    nib.save(nib.Nifti1Image(head_like(seed=5).T, np.diag([4.5, 6, 9, 1])), root / "n.nii.gz")


def mend_cut_file(root: Path) -> None:
    shutil.copy(root / "p2" / "thin" / "000.dcm", root / "p2" / "cut.dcm")


def replace_by_folder(root: Path) -> None:
    (root / "notes").unlink()
    add_series(root / "notes")


@pytest.mark.parametrize(
    ("change", "read", "judged"),
    [
        (change_file, 1, 1),
        (touch_file, 1, 1),
        (add_series, 24, 1),
        (add_study, 12, 1),
        (remove_slice, 0, 1),
        (remove_study, 0, 0),
        (remove_first_of_copies, 0, 1),
        (rename_file, 1, 1),
        (rename_folder, 21, 1),
        (swap_files, 2, 1),
        (change_nifti, 1, 1),
        (mend_cut_file, 1, 1),
        (replace_by_folder, 24, 1),
    ],
)
def test_only_what_changed_is_read(tree: Path, work: Work, change: Any, read: int, judged: int) -> None:
    work.of(tree)
    first = tables(tree)
    change(tree)
    assert work.of(tree) == (read, judged)
    assert tables(tree) == fresh_tables(tree)
    if change is not touch_file:
        assert (tables(tree) == first) is (change in {rename_file, swap_files})
    assert work.of(tree) == (0, 0)


def test_other_rules_judge_again_without_reading(tree: Path, work: Work) -> None:
    work.of(tree)
    first = tables(tree)
    allow = tree.parent / "allow.csv"
    allow.write_text("StudyDescription,KVP,Kernel\nDOE HEAD W/O,120,\n")
    for arguments, more in [
        ([], {"skip": f"GAP,{NO_PIXEL_RULES}"}),
        (["--all-series"], {}),
        (["--criteria", str(allow)], {}),
        (["--add-rules", "CONTRAST"], {}),
    ]:
        assert work.of(tree, *arguments, **more) == (0, SERIES + 1)
        assert tables(tree) == fresh_tables(tree, *arguments, **more)
        assert work.of(tree, *arguments, **more) == (0, 0)
    allow.write_text("StudyDescription,KVP,Kernel\nDOE HEAD W/O,100,\n")
    assert work.of(tree, "--criteria", str(allow)) == (0, SERIES + 1)
    assert work.of(tree) == (0, SERIES + 1)
    assert tables(tree) == first
    assert work.of(tree, "--site", "north") == (0, 0)


def test_another_key_or_way_of_writing_begins_anew(tree: Path, work: Work) -> None:
    work.of(tree)
    whole = (everything(tree), SERIES + 1)
    assert work.of(tree, "--redact-paths") == whole
    assert work.of(tree, "--redact-paths") == (0, 0)
    assert work.of(tree) == whole
    (tree.parent / "key").unlink()
    assert work.of(tree) == whole


def test_several_processes_write_the_same_tables(tree: Path) -> None:
    index(tree)
    first = tables(tree)
    for arguments in (["--fresh"], []):
        index(tree, *arguments, "--workers", "2")
        assert tables(tree) == first
