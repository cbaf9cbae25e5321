"""The rules on headers: each refuses what it names, says what it found, and most can be switched off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_run import index, manifest, reject_rows, rejects
from pydicom.uid import SecondaryCaptureImageStorage
from slice_headers import slice_header, stack_at
from synthetic_series import AXIAL, head_like, stacked, tilted, write_series

from fmct.console.errors import UsageError
from fmct.data.rejection import RejectCode
from fmct.data.rules import ALL_RULES, OPTIONAL, SKIPPABLE, Rules, codes_in, parse_rules
from fmct.data.series import find_scans
from fmct.data.series_rules import SLICE_RULES, has_geometry, mixed_size, short_coverage, small_field
from fmct.data.study import judge_study, split_by_orientation


def first_code(**changes: Any) -> str:
    header = slice_header(**changes)
    return next((code.name for code, rule in SLICE_RULES if rule(header)), "")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, ""),
        ({"modality": "MR"}, "NOT_CT"),
        ({"modality": ""}, "NOT_CT"),
        ({"modality": "SR"}, "NOT_CT"),
        ({"rows": 0}, "NOT_CT"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "LOCALIZER"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP")}, "LOCALIZER"),
        ({"image_type": ("DERIVED", "SECONDARY", "SCREEN SAVE")}, "SECONDARY"),
        ({"image_type": ("DERIVED", "PRIMARY", "AXIAL")}, ""),  # a reformat is an image in HU
        ({"image_type": ("ORIGINAL", "SECONDARY", "AXIAL")}, "SECONDARY"),
        ({"image_type": ("",)}, ""),
        ({"samples": 3, "photometric": "RGB"}, "SECONDARY"),
        ({"photometric": "PALETTE COLOR"}, "SECONDARY"),
        ({"photometric": ""}, ""),
        ({"sop_class": SecondaryCaptureImageStorage}, "SECONDARY"),
        ({"sop_class": f"{SecondaryCaptureImageStorage}.4"}, "SECONDARY"),
    ],
)
def test_what_a_slice_is_not(changes: dict[str, Any], code: str) -> None:
    assert first_code(**changes) == code


@pytest.mark.parametrize(
    ("changes", "sound"),
    [
        ({}, True),
        ({"position_lps_mm": ()}, False),
        ({"position_lps_mm": (1.0, 2.0)}, False),
        ({"position_lps_mm": (1.0, 2.0, 1e9)}, False),
        ({"orientation_lps": ()}, False),
        ({"orientation_lps": (0.0,) * 6}, False),
        ({"orientation_lps": (1, 0, 0, 1, 0, 0)}, False),
        ({"orientation_lps": (1, 0, 0, 0, 2, 0)}, False),
        ({"orientation_lps": tilted(25)}, True),
        ({"orientation_lps": (0.999, 0.001, 0, 0, 1, 0)}, True),
        ({"pixel_spacing_mm": ()}, False),
        ({"pixel_spacing_mm": (0.5,)}, False),
        ({"pixel_spacing_mm": (0.5, 0.0)}, False),
        ({"pixel_spacing_mm": (0.5, -0.5)}, False),
        ({"pixel_spacing_mm": (1e-30, 0.5)}, False),
        ({"pixel_spacing_mm": (0.5, 1e6)}, False),
    ],
)
def test_what_geometry_is_sound(changes: dict[str, Any], sound: bool) -> None:
    assert has_geometry(slice_header(**changes)) is sound


def test_sizes_and_extents() -> None:
    assert mixed_size(stack_at(range(3))) is None
    assert mixed_size([*stack_at(range(3)), slice_header(rows=256)]) == (
        "3 of 512 x 512 at 0.45 x 0.45 mm; 1 of 256 x 512 at 0.45 x 0.45 mm"
    )
    assert short_coverage((220, 220, 79.6)) == "slices cover 80 mm, at least 80 needed"
    assert short_coverage((220, 220, 80)) is None
    assert small_field((139, 220, 150)) == "field of view 139 x 220 mm, at least 140 needed"
    assert small_field((140, 140, 150)) is None


def judged(*stacks: list, rules: Rules = ALL_RULES) -> tuple[list[int], list[str]]:
    result = judge_study([header for stack in stacks for header in stack], rules)
    return [len(scan.slices) for scan in result.scans], [reject.code.name for reject in result.rejects]


def skipping(*codes: str) -> Rules:
    return parse_rules(codes, ())


def test_a_few_slices_at_another_angle_go_alone() -> None:
    head = stack_at(np.arange(30) * 5.0)
    few = stack_at(np.arange(3) * 5.0, orientation_lps=tilted(20))
    assert judged(head + few) == ([30], ["MIXED_ORIENTATION"])
    assert judged(head + few, rules=skipping("MIXED_ORIENTATION")) == ([30], ["TOO_FEW_SLICES"])
    flipped = stack_at(np.arange(20) * 5.0, orientation_lps=(-1.0, 0, 0, 0, 1.0, 0))
    assert judged(head + flipped) == ([30, 20], [])


def test_any_number_of_orientations_is_told_apart_in_time() -> None:
    angles = np.linspace(0, 180, 6000, endpoint=False)
    headers = [slice_header(orientation_lps=(*map(float, (np.cos(a), np.sin(a), 0)), 0.0, 0.0, 1.0)) for a in angles]
    groups = split_by_orientation(headers)
    assert sum(map(len, groups)) == len(headers)
    assert len(groups) > 1000


def test_a_scout_within_a_series_goes_alone() -> None:
    head = stack_at(np.arange(30) * 5.0)
    scout = slice_header(image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), path=Path("/in/series/scout"))
    result = judge_study([*head, scout], ALL_RULES)
    assert [len(scan.slices) for scan in result.scans] == [30]
    assert [(reject.code.name, reject.path) for reject in result.rejects] == [("LOCALIZER", "/in/series/scout")]
    assert result.rejects[0].detail == "ImageType LOCALIZER (1 of 31 images; the others were judged without them)"


def write_rejected(root: Path) -> None:
    """Write a series for each rule that can be switched off and can be broken by a header."""
    hu, places = head_like(), stacked(12)
    write_series(root / "NOT_CT", hu, places, Modality="OT")
    write_series(root / "LOCALIZER", hu, places, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(root / "SECONDARY", hu, places, ImageType=["DERIVED", "SECONDARY", "MPR"])
    write_series(root / "TOO_FEW_SLICES", hu[:7], stacked(7, 16.0))
    write_series(root / "GAP", hu, np.delete(stacked(13), 6, axis=0))
    write_series(root / "SHORT_COVERAGE", hu, stacked(12, 4.0))
    write_series(root / "SMALL_FIELD", hu, places, pixel_mm=(2.0, 2.0))
    two = np.repeat(hu, 2, axis=0) + np.arange(24)[:, None, None] % 2
    write_series(root / "DUPLICATE_POSITION", two, np.repeat(places, 2, axis=0))
    mixed = [list(AXIAL)] * 11 + [list(tilted(20))] * 2
    write_series(root / "MIXED_ORIENTATION", head_like(13), stacked(13), ImageOrientationPatient=mixed)
    uid = {"StudyInstanceUID": "1.2.3"}
    write_series(root / "SPLIT_HEAD" / "base", head_like(11), stacked(11), KVP="140", **uid)
    write_series(root / "SPLIT_HEAD" / "vertex", head_like(11), stacked(11, 8, (-90, -90, 88)), KVP="120", **uid)


def test_each_rule_can_be_switched_off_and_the_manifest_says_so(tmp_path: Path) -> None:
    write_rejected(tmp_path / "in")
    assert index(tmp_path / "in", "--all-series") == 3
    by_rule = {path.split("/")[1]: code for path, code in rejects(tmp_path).items()}
    assert by_rule == {name: name for name in by_rule}
    assert {*by_rule, "IMPLAUSIBLE_HU", "NOT_A_HEAD"} == {code.name for code in SKIPPABLE}
    assert manifest(tmp_path)["path"].tolist() == ["in/MIXED_ORIENTATION"]
    for code in by_rule:
        index(tmp_path / "in", "--all-series", skip=f"{code}, NOT_A_HEAD,implausible_hu")
        frame = manifest(tmp_path)
        there = {path.split("/")[1] for path in frame["path"]}
        assert there == {"MIXED_ORIENTATION", code}, code
        assert set(frame["skipped_rules"]) == {" ".join(sorted({code, "NOT_A_HEAD", "IMPLAUSIBLE_HU"}))}
        assert set(by_rule) - {path.split("/")[1] for path in rejects(tmp_path)} <= {code}
    assert codes_in(manifest(tmp_path)["skipped_rules"].iloc[0]) >= {RejectCode.NOT_A_HEAD}


def test_of_different_images_at_one_place_the_first_can_be_taken(tmp_path: Path) -> None:
    hu, places = head_like(), stacked(12)
    two = np.stack([hu, hu + 1], axis=1).reshape(24, *hu.shape[1:])
    write_series(tmp_path / "in", two, np.repeat(places, 2, axis=0))
    (scan,), rejected = find_scans([tmp_path / "in"], skipping("DUPLICATE_POSITION"))
    assert not rejected
    assert np.array_equal(scan.load().hu, hu)


def test_contrast_is_refused_on_demand(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "with", head_like(), stacked(12), ContrastBolusAgent="Ultravist")
    write_series(tmp_path / "in" / "without", head_like(), stacked(12), ContrastBolusAgent="NONE")
    assert index(tmp_path / "in") == 0
    assert manifest(tmp_path)["contrast"].to_dict() == {"in/with": 1, "in/without": 0}
    assert index(tmp_path / "in", "--add-rules", "contrast") == 3
    assert reject_rows(tmp_path)[["path", "code", "detail"]].values.tolist() == [
        ["in/with", "CONTRAST", "the header names a contrast agent"]
    ]


@pytest.mark.parametrize(
    ("skip", "add", "message"),
    [
        (["GAPS"], [], "did you mean GAP"),
        (["MIXED_SIZE"], [], "can't be switched off"),
        ([], ["GAP"], "it is no optional one"),
        ([], ["CONTRASTS"], "did you mean CONTRAST"),
        (["xyzzy"], [], "the codes are DUPLICATE_POSITION, GAP"),
    ],
)
def test_rules_that_are_none_are_refused(skip: list[str], add: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_rules(skip, add)


def test_every_code_is_one_sentence() -> None:
    assert OPTIONAL.isdisjoint(SKIPPABLE)
    for code in RejectCode:
        assert code.value.endswith(".")
        assert code.value[0].isupper()
