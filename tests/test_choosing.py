"""Of the series of a study, the best is taken, by a policy and an allow-list; the others are rejected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from index_run import index, manifest, reject_rows, rejects
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless
from slice_headers import stack_at
from synthetic_series import AXIAL, head_like, stacked, tilted, write_series

from fmct.cli import main
from fmct.console.errors import UsageError
from fmct.data.choosing import not_chosen, ranked
from fmct.data.criteria import kernel_text, parse_kernel, read_criteria
from fmct.data.kernels import is_sharp
from fmct.data.manifest import read_manifest
from fmct.data.scan import Scan, scan_from_slices

KEY = b"k" * 32
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def scan(name: str, gap_mm: float = 5.0, slices: int = 30, **changes: Any) -> Scan:
    stack = stack_at(np.arange(slices) * gap_mm, **{"series_id": name, "study_id": "s", **changes})
    if changes.get("orientation_lps") == SAGITTAL:
        stack = [
            type(header)(**{**fields(header), "position_lps_mm": (float(k) * gap_mm, 0.0, 0.0)})
            for k, header in enumerate(stack)
        ]
    return scan_from_slices(stack)


def fields(header: object) -> dict[str, Any]:
    return {name: getattr(header, name) for name in type(header).__slots__}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("better", "worse", "reason"),
    [
        (scan("a", 2.5, 60), scan("b", 5), "its slices lie further apart: 5 mm"),
        (scan("a", 5), scan("b", 1, 150, orientation_lps=SAGITTAL), "it isn't axial"),
        (scan("a", 5), scan("b", 1, 150, contrast=True), "it has contrast"),
        (scan("a", 5), scan("b", 1, 150, kernel="H60s"), "its kernel is sharper, or unknown"),
        (scan("a", 5), scan("b", 1, 150, kernel=""), "its kernel is sharper, or unknown"),
        (scan("a", 5, kernel=""), scan("b", 1, 150, kernel="BONE"), "its kernel is sharper, or unknown"),
        (scan("a", 5, kernel=""), scan("b", 1, 150, kernel="", says_bone=True), "its kernel is sharper, or unknown"),
        (scan("a", 5), scan("b", 1, 150, says_bone=True), "its kernel is sharper, or unknown"),
        (scan("a", 5, 32), scan("b", 5, 28), "it covers less"),
        (scan("a", 5, contrast=True), scan("b", 5, contrast=True, orientation_lps=SAGITTAL), "it isn't axial"),
    ],
)
def test_one_preference_after_the_other(better: Scan, worse: Scan, reason: str) -> None:
    assert ranked([worse, better])[0] is better
    assert ranked([better, worse])[0] is better
    reject = not_chosen(worse, better)
    assert (reject.code.name, reject.scan_id) == ("NOT_CHOSEN", worse.scan_id)
    assert reject.detail.startswith(reason)
    assert better.scan_id in reject.detail


def test_the_choice_among_equals_does_not_depend_on_their_order() -> None:
    scans = [scan(name) for name in "abcdef"]
    expected = ranked(scans)
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert ranked([scans[index] for index in rng.permutation(6)]) == expected
    assert not_chosen(expected[1], expected[0]).detail.startswith("it is alike")


@pytest.mark.parametrize(
    ("sharp", "kernels"),
    [
        (True, ["BONE", "BONEPLUS", "BONE+", "EDGE", "LUNG", "DETAIL", "ULTRA", "H60s", "H70h", "B70f", "J70h\\3",
                "Hr60", "Hr68h\\3", "Br64f", "U90u", "FC30", "FC35", "FC51", "FC81", "D", "YD", "L", "YC"]),
        (False, ["STANDARD", "SOFT", "H30s", "H31s", "H37s", "H40s", "J30s\\3", "J40s\\3", "Hr38", "Hr40f", "Hc40",
                 "B30f", "I31s\\3", "Qr40", "FC20", "FC21", "FC26", "FC43", "FC64", "FC68", "UA", "UB", "A", "B",
                 "STND", "h31s"]),
        (None, ["", " "]),
    ],
)  # fmt: skip
def test_kernels(sharp: bool | None, kernels: list[str]) -> None:
    assert {kernel: is_sharp(kernel) for kernel in kernels} == dict.fromkeys(kernels, sharp)


def write_study(root: Path, **tags: Any) -> None:
    """Write a study of a thick soft series, a thin sharp one and a thin one with contrast."""
    tags = {"StudyInstanceUID": "1.2.3", **tags}
    write_series(root / "thick", head_like(12), stacked(12, 8.0), ConvolutionKernel="H31s", **tags)
    write_series(root / "sharp", head_like(24), stacked(24, 4.0), ConvolutionKernel="H60s\\3", **tags)
    tags = {**tags, "ContrastBolusAgent": "X"}
    write_series(root / "agent", head_like(24), stacked(24, 4.0), ConvolutionKernel="H31s", **tags)


def test_one_series_of_a_study_is_chosen(tmp_path: Path) -> None:
    write_study(tmp_path / "in")
    assert index(tmp_path / "in") == 3
    assert manifest(tmp_path)["path"].tolist() == ["in/thick"]
    assert rejects(tmp_path) == {"in/sharp": "NOT_CHOSEN", "in/agent": "NOT_CHOSEN"}
    details = reject_rows(tmp_path).set_index("path")["detail"]
    chosen = manifest(tmp_path)["scan_id"].iloc[0]
    assert details["in/agent"] == f"it has contrast: 4 mm, kernel H31s; chosen was {chosen} (8 mm, kernel H31s)"


def test_all_series_can_be_kept_and_share_a_patient_and_a_split(tmp_path: Path) -> None:
    for number in range(6):
        patients = {"a": f"P{number}", "b": "", "c": None}
        for kind, patient in patients.items():
            uid = f"1.{number}.{ord(kind)}"
            write_study(tmp_path / "in" / f"{kind}{number}", StudyInstanceUID=uid, PatientID=patient)
    assert index(tmp_path / "in", "--all-series") == 0
    frame = manifest(tmp_path)
    assert len(frame) == 54
    assert frame.groupby("study_id")["patient_id"].nunique().max() == 1
    assert frame["patient_id"].nunique() == 18
    split = ["split", str(tmp_path / "m.csv"), "--out", str(tmp_path / "s.csv")]
    assert main(split) == 0
    assert read_manifest(tmp_path / "s.csv", tmp_path).groupby("study_id")["split"].nunique().max() == 1


def test_reconstructions_without_any_identifier_share_a_patient(tmp_path: Path) -> None:
    nobody = {"StudyInstanceUID": "", "PatientID": "", "SeriesInstanceUID": ""}
    for letter, orientation in {"A": AXIAL, "B": tilted(20)}.items():
        names = [f"{letter}{k}" for k in range(17)]
        write_series(tmp_path / "in" / "a", head_like(17), stacked(17), orientation, names=names, **nobody)
    write_series(tmp_path / "in" / "b", head_like(seed=1), stacked(12), **nobody)
    assert index(tmp_path / "in", "--all-series") == 0
    patients = manifest(tmp_path)["patient_id"]
    assert [patients["in/a"].nunique(), patients.nunique(), (patients == "").sum()] == [1, 2, 0]


def test_patients_of_a_study_that_disagree_become_one(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "a", head_like(), stacked(12), StudyInstanceUID="1.2", PatientID="P1")
    write_series(tmp_path / "in" / "b", head_like(9), stacked(9, 12.0), StudyInstanceUID="1.2", PatientID="P2")
    write_series(tmp_path / "in" / "c", head_like(seed=1), stacked(12), PatientID="P1")
    assert index(tmp_path / "in", "--all-series") == 0
    assert len(set(manifest(tmp_path)["patient_id"])) == 1


def test_a_series_that_fails_at_a_look_gives_way_to_the_next(tmp_path: Path) -> None:
    study = {"StudyInstanceUID": "1.2.3"}
    (_, broken, *_) = write_series(tmp_path / "in" / "thin", head_like(24), stacked(24, 4.0), **study)
    compressed = dcmread(broken)
    compressed.compress(RLELossless)
    compressed.PixelData = encapsulate([b"\1" * 900])  # what the header says of it is right
    compressed.save_as(broken)
    write_series(tmp_path / "in" / "thick", head_like(), stacked(12), **study)
    write_series(tmp_path / "in" / "thicker", head_like(10), stacked(10, 10.0), **study)
    assert index(tmp_path / "in", skip="NOT_A_HEAD") == 3
    assert manifest(tmp_path)["path"].tolist() == ["in/thick"]
    assert rejects(tmp_path) == {"in/thin/001.dcm": "UNREADABLE", "in/thicker": "NOT_CHOSEN"}


CRITERIA = """Study Description,kvp,ConvolutionKernel,note
  doe head w/o ,120.0,"['H60s', '3']",a list
CT BRAIN,120,H31s,text
"""


def test_an_allow_list_chooses_first(tmp_path: Path) -> None:
    write_study(tmp_path / "in" / "p1")
    write_study(tmp_path / "in" / "p2", StudyInstanceUID="1.2.4", StudyDescription="CT Brain ")
    write_study(tmp_path / "in" / "p3", StudyInstanceUID="1.2.5", StudyDescription="CT BRAIN", KVP="140")
    (tmp_path / "allow.csv").write_text(CRITERIA)
    assert index(tmp_path / "in", "--criteria", str(tmp_path / "allow.csv")) == 3
    assert manifest(tmp_path)["path"].tolist() == ["in/p1/sharp", "in/p2/thick"]
    rows = reject_rows(tmp_path)
    assert set(rows["code"]) == {"NOT_CHOSEN"}
    detail = rows.set_index("path").loc["in/p3/thick", "detail"]
    assert detail == "the criteria don't list its study description with 140 kV and kernel H31s"
    assert "BRAIN" not in rows.to_csv().upper()


@pytest.mark.parametrize(
    ("cell", "kernel"),
    [
        ("H31s", "H31s"),
        (" H31s ", "H31s"),
        ("", ""),
        (None, ""),
        (float("nan"), ""),
        ("['J40s', '3']", "J40s\\3"),
        ('["J40s", "3"]', "J40s\\3"),
        ("['J40s' '3']", "J40s\\3"),
        ("('UB',)", "UB"),
        ("[J40s, 3]", "J40s\\3"),
        ("[]", ""),
        ("J40s\\3", "J40s\\3"),
        (["J40s", "3"], "J40s\\3"),
        (np.array(["J40s", "3"]), "J40s\\3"),
        (3.0, "3"),
    ],
)
def test_kernels_in_criteria(cell: object, kernel: str) -> None:
    assert parse_kernel(cell) == kernel
    assert kernel_text(f" {kernel.lower()} ") == kernel.upper()


def test_criteria_may_be_parquet(tmp_path: Path) -> None:
    table = {"StudyDescription": ["x", None], "KVP": [120, 100], "Kernel": [["J40s", "3"], None]}
    pd.DataFrame(table).to_parquet(tmp_path / "c.parquet")
    pd.DataFrame({"study_description": ["X ", ""], "kV": ["120", "100"], "kernel": ["J40S\\3", ""]}).to_csv(
        tmp_path / "c.csv", index=False
    )
    one, other = (read_criteria(tmp_path / name, KEY) for name in ("c.parquet", "c.csv"))
    assert one == other
    assert one.fingerprint == other.fingerprint
    assert {entry[1:] for entry in one.entries} == {(120.0, "J40S\\3"), (100.0, "")}
    assert json.loads(one.fingerprint)
    assert read_criteria(tmp_path / "c.csv", b"j" * 32) != one


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("StudyDescription,KVP\nx,120\n", "no column for kernel"),
        ("StudyDescription,KVP,Kernel\n", "no rows"),
        ("StudyDescription,KVP,Kernel\nx,120,a\nx,,a\n", "no tube voltage in line 3"),
    ],
)
def test_criteria_that_say_too_little_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_criteria(tmp_path / "c.csv", KEY)


def test_a_whole_head_goes_before_a_thin_part_of_it(tmp_path: Path) -> None:
    study = {"StudyInstanceUID": "1.2.3"}
    write_series(tmp_path / "in" / "temporal", head_like(100), stacked(100, 1.0), **study)
    write_series(tmp_path / "in" / "whole", head_like(28), stacked(28, 5.0), **study)
    assert index(tmp_path / "in") == 3
    assert manifest(tmp_path)["path"].tolist() == ["in/whole"]
    (detail,) = reject_rows(tmp_path)["detail"]
    assert detail.startswith("it covers less than a head: 1 mm")
