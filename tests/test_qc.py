"""Quality control: figures against analytic heads and NumPy, counts that add up, a page that is safe and bounded."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import TinyCohort
from page_elements import Elements
from PIL import Image
from synthetic_series import AXIAL, head_like, stacked, write_series

from fmct.console.command import main
from fmct.console.errors import UsageError
from fmct.data.dicom import SliceHeader
from fmct.data.manifest import read_manifest
from fmct.data.presets import IsotropicSettings
from fmct.data.rejection import RejectCode
from fmct.data.scan import scan_id_of
from fmct.data.series import slice_headers
from fmct.data.volumes import Volume, VolumeCache
from fmct.qc import COMMAND
from fmct.quality.counts import Waterfall, waterfall
from fmct.quality.histograms import bins, site_colors
from fmct.quality.measures import MEASURES
from fmct.quality.outliers import Outlier, find_outliers, groups, typical_values, with_scores, worst_of_each_kind
from fmct.quality.page import Quality, Sources, every_nth, make_page
from fmct.quality.panels import PANEL_PIXELS, Picture, scan_picture, slices_through_head
from fmct.quality.reject_pictures import RejectPictures
from fmct.quality.rejects import by_code, read_index_rejects
from fmct.quality.source_panels import upright
from fmct.quality.statistics import measure, quantile
from fmct.quality.survey import survey
from fmct.quality.windows import WINDOWS_HU, gray

FILL = -1024
EVIL = "<script>alert(1)</script>"


def head(
    side: int = 60,
    spacing_mm: float = 4.0,
    brain: float = 33.0,
    noise: float = 0.0,
    seed: int = 0,
    radius_mm: float = 80.0,
) -> np.ndarray:
    """A ball of brain in a skull 8 mm thick, in 12 mm of air, in a cube of fill; (Z, Y, X) int16."""
    axis = (np.arange(side) - (side - 1) / 2) * spacing_mm
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    radius = np.sqrt(z**2 + y**2 + x**2)
    hu = np.full((side,) * 3, FILL, np.float64)
    hu[radius < radius_mm + 20] = -1000
    hu[radius < radius_mm + 8] = 1200
    inside = radius < radius_mm
    hu[inside] = np.random.default_rng(seed).normal(brain, noise, np.count_nonzero(inside))
    return np.rint(hu).astype(np.int16)


def write_cache(folder: Path, volumes: dict[str, np.ndarray], **facts: list[float]) -> VolumeCache:
    cache = VolumeCache.create(folder, IsotropicSettings(spacing_mm=4.0, shape_voxels=60))
    for number, (scan_id, hu) in enumerate(volumes.items()):
        cache.write(
            scan_id,
            Volume(hu, np.diag([4.0, 4.0, 4.0, 1.0])),
            {name: values[number] for name, values in facts.items()},
        )
    cache.save()
    return cache


def pixels(picture: Picture | str) -> np.ndarray:
    assert isinstance(picture, Picture), picture
    assert picture.source.startswith("data:image/webp;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(picture.source.split(",")[1])))
    assert image.size == (picture.width, picture.height)
    return np.asarray(image.convert("L"))


def table(**columns: list[Any]) -> pd.DataFrame:
    """What a survey would give, all unknown but some columns."""
    length = len(next(iter(columns.values())))
    empty = {one.name: [np.nan] * length for one in MEASURES}
    text = {name: [""] * length for name in ("site", "manufacturer", "model", "kernel", "problem")}
    return pd.DataFrame({**empty, **text, **columns}, index=pd.Index([f"s{n:04d}" for n in range(length)]))


def outliers_of(frame: pd.DataFrame) -> list[Outlier]:
    return find_outliers(frame, typical_values(frame))


# figures


def test_a_head_of_known_make_is_measured_as_made() -> None:
    hu = head()
    found = measure(hu, 4.0, FILL)
    assert found["brain_hu"] == pytest.approx(33, abs=0.5)
    assert found["air_hu"] == pytest.approx(-1000, abs=0.5)
    assert found["bone_hu"] == pytest.approx(1200, abs=0.5)
    assert found["head_ml"] == pytest.approx(4 / 3 * np.pi * 8.8**3, rel=0.01)
    for side in ("height_mm", "depth_mm", "width_mm"):
        assert found[side] == pytest.approx(176, abs=4)
    assert found["fill_share"] == pytest.approx(np.mean(hu == FILL))
    assert found["noise_hu"] == 0
    assert found["asymmetry"] == 0
    assert found["metal_share"] == 0
    assert found["top_share"] < 0.1


def test_figures_are_what_numpy_says() -> None:
    hu = head(noise=5, seed=1)
    hu[30, 20:24, 20:24] = 3000
    found = measure(hu, 4.0, FILL)
    brain, bone = hu[(hu >= 0) & (hu <= 80)], hu[hu > 300]
    assert found["brain_hu"] == pytest.approx(np.median(brain), abs=0.5)
    assert found["brain_spread_hu"] == pytest.approx(np.subtract(*np.percentile(brain, [75, 25])), abs=1.0)
    assert found["bone_hu"] == pytest.approx(np.percentile(bone, 95), abs=0.6)
    assert found["metal_share"] == pytest.approx(16 / np.count_nonzero(hu > -300))
    assert found["noise_hu"] == pytest.approx(5, rel=0.03)
    assert found["air_hu"] == pytest.approx(np.median(hu[(hu > FILL) & (hu <= -850)]), abs=0.5)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.95, 1.0])
def test_quantiles_come_from_counts(share: float) -> None:
    values = np.random.default_rng(0).normal(40, 12, 20_000).round().astype(int)
    counts = np.bincount(values - values.min())
    found = quantile(counts, int(values.min()), share)
    assert abs(found - np.quantile(values, share)) <= 0.5
    assert np.mean(values < found - 0.5) <= share <= np.mean(values <= found + 0.5)


def test_missing_vertex_and_asymmetry_show() -> None:
    whole = measure(head(), 4.0, FILL)
    cut, lesion = head(), head()
    cut[36:] = FILL
    lesion[25:40, 25:40, 12:25] = 70
    assert measure(cut, 4.0, FILL)["top_share"] > 0.8 > whole["top_share"]
    assert measure(cut, 4.0, FILL)["height_mm"] == pytest.approx(whole["height_mm"] - 4 * (60 - 36 - 8), abs=1)
    assert measure(lesion, 4.0, FILL)["asymmetry"] > whole["asymmetry"] + 0.02
    mirrored = measure(lesion[..., ::-1], 4.0, FILL)
    assert mirrored["asymmetry"] == pytest.approx(measure(lesion, 4.0, FILL)["asymmetry"])


def test_nothing_is_guessed_where_there_is_nothing() -> None:
    empty = measure(np.full((8, 9, 10), FILL, np.int16), 4.0, FILL)
    assert empty["fill_share"] == 1
    assert empty["head_ml"] == 0
    assert all(np.isnan(empty[name]) for name in set(empty) - {"fill_share", "head_ml"})
    clamped = head()
    clamped[clamped == -1000] = FILL
    assert np.isnan(measure(clamped, 4.0, FILL)["air_hu"])
    bones = head()
    bones[(bones > 0) & (bones < 100)] = 500
    found = measure(bones, 4.0, FILL)
    assert np.isnan(found["brain_hu"])
    assert found["bone_hu"] > 300


# outliers


def test_what_stands_out_has_a_reason_in_words() -> None:
    rng = np.random.default_rng(0)
    brain = [*rng.normal(33, 2, 40), 61.0]
    frame = table(brain_hu=brain, cropped_mm=[0.0] * 40 + [1.0])
    found = outliers_of(frame)
    assert [one.scan_id for one in found] == ["s0040"]
    assert re.fullmatch(
        r"brain 61 HU, typical 3[234] ± [123] HU: contrast given, or wrong rescale\?", found[0].reasons[0]
    )
    median = np.median(brain)
    spread = 1.4826 * np.median(np.abs(np.array(brain) - median))
    assert found[0].score == pytest.approx((61 - median) / spread)
    scored = with_scores(frame, typical_values(frame), found)
    assert scored["z_brain_hu"].to_numpy() == pytest.approx((np.array(brain) - median) / spread)
    assert (scored["reasons"] != "").sum() == 1


def test_a_good_side_is_no_fault_and_small_differences_are_none() -> None:
    equal = [5.0] * 30
    assert not outliers_of(table(brain_hu=[33.0] * 30 + [34.0]))
    assert not outliers_of(table(source_gap_max_mm=[*equal, 0.6]))
    far = outliers_of(table(source_gap_max_mm=[*equal, 15.0]))
    assert far[0].reasons == ("largest gap 15.00 mm, typical 5.00 ± 0.00 mm: slices missing, or thick ones?",)


def test_few_scans_have_no_outliers_but_unreadable_ones() -> None:
    frame = table(brain_hu=[33.0] * 18 + [90.0], problem=["the cached volume is missing"] + [""] * 18)
    found = outliers_of(frame)
    assert [(one.scan_id, one.reasons) for one in found] == [("s0000", ("the volume is missing",))]


def test_unreadable_then_lacking_then_by_score() -> None:
    rng = np.random.default_rng(0)
    frame = table(
        brain_hu=[*rng.normal(33, 2, 36), 50.0, 70.0, np.nan, np.nan],
        problem=[""] * 39 + ["the cached volume is missing"],
    )
    found = outliers_of(frame)
    assert [one.scan_id for one in found] == ["s0039", "s0038", "s0037", "s0036"]
    assert found[1].reasons[0].endswith("no tissue from 0 to 80 HU: are these HU?")


def test_a_common_kind_does_not_hide_a_rare_one() -> None:
    found = [Outlier(f"a{n}", 50.0 - n, ("r",), "Brain") for n in range(20)]
    found += [
        Outlier("b", 5.0, ("r",), "Height"),
        Outlier("c", 4.0, ("r",), "Noise"),
        Outlier("d", 3.9, ("r",), "Noise"),
    ]
    assert [one.scan_id for one in worst_of_each_kind(found, 5)] == ["a0", "a1", "b", "c", "d"]
    assert [one.scan_id for one in worst_of_each_kind(found, 2)] == ["a0", "b"]
    assert worst_of_each_kind(found, 99) == found


def test_many_that_stand_out_are_called_a_group() -> None:
    rng = np.random.default_rng(0)
    frame = table(noise_hu=[*rng.normal(4, 0.3, 40), *rng.normal(12, 0.3, 10)])
    assert [one.measure.name for one in groups(frame, typical_values(frame))] == ["noise_hu"]


# counts


def rejects_of(*rows: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"path": f"p{n}", "code": code, "detail": "d", "scan_id": one} for n, (code, one) in enumerate(rows)],
        columns=["path", "code", "detail", "scan_id"],
    )


def check_sum(counted: Waterfall) -> None:
    left = None
    for step in counted.steps:
        if step.is_loss:
            left -= step.count
        else:
            assert left in {None, step.count}, step
            left = step.count
        assert step.left == left


def test_the_waterfall_adds_up() -> None:
    index_rejects = rejects_of(
        ("GAP", "g1"), ("GAP", "g2"), ("LOCALIZER", "l1"), ("EMPTY", ""), ("EMPTY", ""),
        ("LOCALIZER", "a"),  # a scout among the slices of a scan that is in the manifest
        ("SECONDARY", "g2"),  # one series, two codes
    )  # fmt: skip
    own = rejects_of(("NOT_A_HEAD", "c"), ("FAILED", "elsewhere"), ("FAILED", "a"))
    counted = waterfall(["a", "b", "more"], own, ["a", "b", "c", "waiting"], index_rejects)
    check_sum(counted)
    assert [(one.title or one.code, one.count) for one in counted.steps] == [
        ("series and volumes found", 7),
        ("GAP", 2),
        ("LOCALIZER", 1),
        ("in the manifest", 4),
        ("NOT_A_HEAD", 1),
        ("not preprocessed yet", 1),
        ("in the cache", 2),
    ]
    assert counted.files == {"EMPTY": 2}
    assert len(counted.notes) == 3
    assert "2 rejects are parts of series" in counted.notes[0]


def test_stages_without_a_table_are_said() -> None:
    own = rejects_of(("NOT_A_HEAD", "c"))
    for manifest, flag in ((None, "--manifest"), (["a", "c"], "rejects.csv")):
        counted = waterfall(["a"], own, manifest)
        check_sum(counted)
        assert counted.steps[0].count == 2
        assert flag in counted.notes[0]


# pictures


def test_right_is_on_the_left_and_windows_are_the_networks() -> None:
    from fmct.views.windows import BONE, BRAIN, SUBDURAL

    shown = {"brain": BRAIN, "subdural": SUBDURAL, "bone": BONE}
    assert {name: (one.level_hu, one.width_hu) for name, one in shown.items()} == WINDOWS_HU
    assert gray(np.array([-500, 0, 40, 80, 500]), *WINDOWS_HU["brain"]).tolist() == [0, 0, 128, 255, 255]
    hu = head()
    hu[:, :, 40:][hu[:, :, 40:] == 33] = 80  # the patient's right
    hu[:, 44:][hu[:, 44:] == 33] = 0  # the front
    sheet = pixels(scan_picture(hu, 4.0, "s"))
    assert sheet.shape == (3 * PANEL_PIXELS, 3 * PANEL_PIXELS)
    middle, off = PANEL_PIXELS // 2, PANEL_PIXELS // 4
    axial, coronal = sheet[:PANEL_PIXELS, :PANEL_PIXELS], sheet[:PANEL_PIXELS, PANEL_PIXELS : 2 * PANEL_PIXELS]
    sagittal = sheet[:PANEL_PIXELS, 2 * PANEL_PIXELS :]
    for plane in (axial, coronal):
        assert plane[middle, middle - off] > 200
        assert plane[middle, middle + off] < 160
    assert axial[middle - 34, middle] < 40 < axial[middle + 34, middle]
    assert sagittal[middle, middle - 34] < 40 < sagittal[middle, middle + 34]


def test_planes_go_through_the_head_wherever_it_lies() -> None:
    hu = np.full((100, 60, 60), FILL, np.int16)
    hu[10:90, 5:35, 10:50] = 40
    hu[89 - 35] = 41  # 70 mm below the highest plane, at 2 mm
    planes = slices_through_head(hu, 2.0)
    assert (planes["axial"] == 41).any()
    assert planes["coronal"].shape == (100, 60)
    assert (planes["coronal"] >= 40).sum() == 79 * 40 + 60
    nothing = slices_through_head(np.full((9, 9, 9), FILL, np.int16), 2.0)
    assert nothing["axial"].shape == (9, 9)


def test_slices_are_turned_as_their_header_says() -> None:
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert upright(picture, AXIAL)[1:] == ("R", "A")
    assert np.array_equal(upright(picture, AXIAL)[0], picture)
    turned = upright(picture, (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    assert turned[1:] == ("R", "A")
    assert np.array_equal(turned[0], picture[::-1, ::-1])
    assert upright(picture, (0.0, 1.0, 0.0, 0.0, 0.0, -1.0))[1:] == ("A", "S")
    assert upright(picture, ())[1:] == ("", "")


# rejects


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Two series in one folder, a damaged file, and NIfTIs with and without geometry."""
    root = tmp_path / "root"
    dark, bright = head_like(12), head_like(12, seed=1)
    bright[(bright > -200) & (bright < 500)] += 200
    write_series(root / "both", dark, stacked(12), names=[f"A{k}" for k in range(12)])
    write_series(root / "both", bright, stacked(12), names=[f"B{k}" for k in range(12)])
    (root / "cut.dcm").write_bytes((root / "both" / "A3").read_bytes()[:-1500])
    (root / "empty.dcm").touch()
    lateral = np.full((41, 31, 21), -1000, np.int16)
    lateral[8:32, 5:25, 4:16] = 40
    lateral[8:20] = 700  # low x: left, for RAS
    lateral[8:20, :5] = lateral[8:20, 25:] = -1000
    nib.save(nib.Nifti1Image(lateral, np.diag([2.0, 2.0, 2.0, 1.0])), root / "ras.nii.gz")
    nib.save(nib.Nifti1Image(lateral[::-1], np.diag([-2.0, 2.0, 2.0, 1.0])), root / "las.nii.gz")
    image = nib.Nifti1Image(lateral, None)
    image.header["qform_code"] = image.header["sform_code"] = 0
    nib.save(image, root / "nowhere.nii.gz")
    return root


def test_a_series_is_found_by_its_id(sources: Path) -> None:
    draw = RejectPictures(sources)
    headers = list(slice_headers([sources / "both"]))
    ids = {name: scan_id_of([header for header in headers if header.path.name[0] == name]) for name in "AB"}
    assert len(set(ids.values())) == 2
    center = (PANEL_PIXELS // 2 - 8, PANEL_PIXELS // 2 + 8)
    dark, bright = (pixels(draw.draw("both", "GAP", ids[name]))[slice(*center), slice(*center)] for name in "AB")
    assert dark.mean() < bright.mean() - 25
    assert draw.draw("both", "GAP", "") == "which series of the folder isn't said"
    assert draw.draw("both", "GAP", "feedfeedfeedfeed") == "the series isn't in the folder"


def test_nifti_files_are_drawn_in_three_planes_however_they_are_stored(sources: Path) -> None:
    draw = RejectPictures(sources)
    ras, las = (pixels(draw.draw(f"{name}.nii.gz", "NOT_A_HEAD", "x")) for name in ("ras", "las"))
    assert ras.shape == (PANEL_PIXELS, 3 * PANEL_PIXELS)
    assert np.array_equal(ras, las)
    middle, off = PANEL_PIXELS // 2, 18
    assert ras[middle, middle + off] > 240 > 160 > ras[middle, middle - off] > 90  # left, high, is on the right
    assert pixels(draw.draw("nowhere.nii.gz", "NO_GEOMETRY", "")).shape == (PANEL_PIXELS, PANEL_PIXELS)


def test_what_cannot_or_must_not_be_shown_says_why(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fmct.quality import reject_pictures

    draw = RejectPictures(sources)
    assert "burned in" in str(draw.draw("both", "SECONDARY", "x"))
    assert "burned in" in str(draw.draw("both/A1", "NOT_CT", ""))
    assert "cut short" in str(draw.draw("cut.dcm", "UNREADABLE", ""))
    assert draw.draw("empty.dcm", "EMPTY", "") == "the file has no bytes"
    assert draw.draw("../elsewhere", "GAP", "x") == "the path leads out of the root"
    assert draw.draw("gone", "MISSING", "x") == "not there below the root"
    assert "--root" in str(RejectPictures(None).draw("both", "GAP", "x"))
    (sources / "bad.nii").write_bytes(b"no nifti at all")
    assert isinstance(draw.draw("bad.nii", "UNREADABLE", ""), str)
    monkeypatch.setattr(reject_pictures, "FILES_IN_FOLDER", 20)
    assert RejectPictures(sources).draw("both", "GAP", "x") == "too many files to search"

    def broken(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(reject_pictures, "slice_headers", broken)
    assert RejectPictures(sources).draw("both/A1", "GAP", "") == "can't be read (MemoryError)"


def test_the_middle_slice_is_taken(sources: Path) -> None:
    from fmct.quality.source_panels import middle_slice

    headers: list[SliceHeader] = [one for one in slice_headers([sources / "both"]) if one.path.name[0] == "A"]
    assert middle_slice(headers[::-1]).position_lps_mm[2] == 48.0


def test_examples_are_bounded_and_spread() -> None:
    rejects = pd.DataFrame(
        {"path": [f"p{n:03d}" for n in range(100)], "code": "GAP", "detail": "x" * 900, "scan_id": "s"}
    )
    rejects.loc[7, "code"] = "INVENTED"
    found = by_code(rejects, "index", lambda path, code, scan_id: "no picture")
    assert [(one.code, one.count, len(one.examples)) for one in found] == [("GAP", 99, 4), ("INVENTED", 1, 1)]
    assert [one.path for one in found[0].examples] == ["p000", "p034", "p066", "p099"]
    assert found[0].meaning == RejectCode.GAP.value
    assert "doesn't know" in found[1].meaning
    assert len(found[0].examples[0].detail) <= 240


def test_rejects_of_the_index_are_read_with_and_without_ids(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    assert read_index_rejects(manifest) is None
    (tmp_path / "rejects.csv").write_text("path,code,detail\n001,GAP,NA\n")
    old = read_index_rejects(manifest)
    assert old is not None
    assert old.to_dict("records") == [{"path": "001", "code": "GAP", "detail": "NA", "scan_id": ""}]
    for text, problem in (("", "can't be read"), ("path,detail\n1,2\n", "no column 'code'")):
        (tmp_path / "rejects.csv").write_text(text)
        with pytest.raises(UsageError, match=problem):
            read_index_rejects(manifest)


# the page


@pytest.fixture
def cohort(tmp_path: Path) -> Sources:
    """26 heads of two sites, one with contrast, one file gone, rejects of both stages, foul names everywhere."""
    volumes = {f"scan{n:02d}": head(noise=4, seed=n, brain=70 if n == 13 else 33) for n in range(26)}
    cache = write_cache(tmp_path / "cache", volumes, source_gap_mm=[5.0] * 26, source_tilt_deg=[0.0] * 26)
    cache.volume_path("scan20").unlink()
    cache.reject("bad", "scans/bad", RejectCode.NOT_A_HEAD, f"{EVIL} detail")
    cache.save()
    rows = [
        {
            "scan_id": scan_id, "path": f"scans/{scan_id}", "format": "dicom", "patient_id": scan_id,
            "site": f"{EVIL}west" if n % 2 else "east", "manufacturer": "ACME", "model": f"{EVIL} 9 $x^2$",
        }
        for n, scan_id in enumerate([*volumes, "bad"])
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "m.csv", index=False)
    rejects_of(("GAP", "g1"), ("EMPTY", "")).assign(path=f"{EVIL}.dcm").to_csv(tmp_path / "rejects.csv", index=False)
    return Sources(cache, read_manifest(tmp_path / "m.csv"), read_index_rejects(tmp_path / "m.csv"), tmp_path)


def test_the_page_says_what_there_is(cohort: Sources) -> None:
    made = make_page(cohort, montage=5)
    page = Elements(made.html)
    assert [one.scan_id for one in made.outliers] == ["scan20", "scan13"]
    assert "the volume is missing" in page.text
    assert re.search(r"brain 70 HU, typical 33\.0 ± 0\.\d HU: contrast given", page.text)
    assert made.html.index("contrast given") < made.html.index('id="sample"')
    for sentence in ("patient data", "no diagnosis", "patient's right is on the left", "One scan in 6, by scan_id"):
        assert sentence in page.text
    anchors = {value[1:] for value in page.values("href")}
    assert anchors
    assert anchors <= set(page.values("id"))
    check_sum(made.counts)
    assert [one.count for one in made.counts.steps] == [28, 1, 27, 1, 26]
    for code in ("GAP", "EMPTY", "NOT_A_HEAD"):
        assert RejectCode[code].value in page.text
    assert "not there below the root" in page.text
    assert page.tags["img"] == 1 + 5 + made.html.count("Histogram:")
    assert all(page.values("alt"))


def test_the_page_is_safe_and_needs_no_network(cohort: Sources) -> None:
    made = make_page(cohort, montage=5)
    page = Elements(made.html)
    assert not {"script", "link", "iframe", "object", "b>"} & set(page.tags)
    assert page.text.count(EVIL) >= 5
    assert all(value.startswith("data:image/") for value in page.values("src"))
    assert "default-src 'none'" in page.values("content")[-1]
    assert not re.search(r"https?://|@import|url\(", made.html)


def test_the_same_cache_gives_the_same_page_with_any_workers(cohort: Sources) -> None:
    one, two = make_page(cohort, montage=3), make_page(cohort, montage=3, workers=2)
    assert one.html == two.html
    pd.testing.assert_frame_equal(one.table, two.table)


def test_without_manifest_and_with_few_scans(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "cache", {f"s{n}": head(brain=33 + 20 * n) for n in range(3)})
    page = Elements(make_page(Sources(cache), montage=48).html)
    assert "With 3 scans there is no telling" in page.text
    assert "All scans" in page.text
    assert page.text.count("--manifest") == 3
    assert "No scan stands out" not in page.text


def test_the_page_is_bounded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cache = VolumeCache.create(tmp_path, IsotropicSettings(spacing_mm=9.0, shape_voxels=24))
    base = head(24, 9.0)
    for number in range(300):
        hu = base.copy()
        inside = hu > FILL
        hu[inside] += rng.integers(-9, 9, np.count_nonzero(inside)).astype(np.int16)
        if number % 3 == 0:
            hu[hu == hu.clip(0, 60)] += np.int16(rng.integers(20, 90))
        cache.write(f"s{number:03d}", Volume(hu, np.diag([9.0, 9.0, 9.0, 1.0])))
    for number in range(400):
        cache.reject(f"r{number}", f"p{number}", list(RejectCode)[number % 20], "x" * 5000)
    cache.save()
    made = make_page(Sources(cache), montage=48)
    page = Elements(made.html)
    assert len(made.outliers) > 40
    assert page.tags["img"] <= 48 + 12 + 12
    assert len(made.html) < 2_000_000
    assert "stand out by brain" in page.text


def test_every_nth() -> None:
    ids = [str(n) for n in range(50)]
    assert every_nth(ids, 48) == ids[::2]
    assert every_nth(ids, 50) == ids
    assert len(every_nth([str(n) for n in range(5000)], 48)) == 48
    assert every_nth(ids, 0) == []


def test_bins_hold_all_values_and_follow_their_steps() -> None:
    rng = np.random.default_rng(0)
    for values, slack in (
        (rng.normal(33, 2, 5000), 1.0),
        (150 + 1.5 * rng.integers(0, 30, 5000), 6.0),
        (np.array([5.0]), 1.5),
        (np.array([5.0, 5.0001]), 1.5),
        (np.array([0.0, 18.5]), 7.0),
    ):
        edges = bins(values, slack)
        counts, _ = np.histogram(values, edges)
        assert counts.sum() == values.size
        assert np.diff(edges) == pytest.approx(edges[1] - edges[0])
        assert len(counts) <= 75
        assert edges[1] - edges[0] >= slack / 11
    counts, edges = np.histogram(lattice := 150 + 1.5 * np.arange(31).repeat(50), bins(lattice, 6.0))
    assert counts.min() >= 50
    assert (edges[1] - edges[0]) % 1.5 == pytest.approx(0)


def test_sites_beyond_the_palette_share_a_color() -> None:
    sites = pd.Series([f"site{n}" for n in range(9) for _ in range(9 - n)])
    assert list(site_colors(sites)) == [f"site{n}" for n in range(6)] + ["other sites"]
    assert list(site_colors(pd.Series(["", ""]))) == ["no site given"]


# the command


def test_the_command_writes_page_and_table(cohort: Sources, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, figures = tmp_path / "qc.html", tmp_path / "qc.parquet"
    arguments = [str(tmp_path / "cache"), "--manifest", str(tmp_path / "m.csv"), "--out", str(out), "--montage", "4"]
    assert main(COMMAND, [*arguments, "--table", str(figures)]) == 0
    printed = capsys.readouterr().out
    assert "26 scans measured, 3 rejects read" in printed
    assert "2 stand out, the worst:" in printed
    assert "scan20  the volume is missing" in printed
    assert "patient data" in printed
    kept = pd.read_parquet(figures)
    assert len(kept) == 26
    assert kept["site"].nunique() == 2
    again = outliers_of(kept)
    assert ["; ".join(one.reasons) for one in again] == kept.loc[[one.scan_id for one in again], "reasons"].tolist()
    assert (kept["reasons"] != "").sum() == len(again)
    assert main(COMMAND, [*arguments, "--json", "--table", str(tmp_path / "qc.csv")]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert [one["scan_id"] for one in numbers["outliers"]] == ["scan20", "scan13"]
    assert numbers["waterfall"][0]["count"] == 28
    assert numbers["typical"]["brain_hu"]["median"] == pytest.approx(kept["brain_hu"].median())
    assert len(pd.read_csv(tmp_path / "qc.csv")) == 26


def test_usage_errors(tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = VolumeCache.create(tmp_path / "empty", IsotropicSettings())
    empty.save()
    for arguments, problem in (
        ([str(tmp_path / "empty")], "the cache has no scan"),
        ([str(tmp_path / "nowhere")], "doesn't exist"),
        ([str(tiny.cache), "--out", str(tmp_path)], "is a folder"),
        ([str(tiny.cache), "--table", "x.xlsx"], ".csv or .parquet"),
        ([str(tiny.cache), "--root", str(tmp_path / "gone")], "no such folder"),
    ):
        assert main(COMMAND, [*arguments, *([] if "--out" in arguments else ["--out", str(tmp_path / "x.html")])]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert problem in error[0]
        assert len(error) == 3
    assert not (tmp_path / "x.html").exists()


def test_a_damaged_volume_never_stops_the_page(tiny: TinyCohort, tmp_path: Path) -> None:
    shutil.copytree(tiny.cache, tmp_path / "cache")
    cache = VolumeCache.open(tmp_path / "cache")
    path = cache.volume_path("scan003")
    path.write_bytes(path.read_bytes()[:300])
    made = make_page(Sources(cache), montage=24)
    assert isinstance(made, Quality)
    assert made.outliers[0].scan_id == "scan003"
    frame = survey(cache)
    assert frame.loc["scan003", [one.name for one in MEASURES if one.name in measure(head(), 4.0, FILL)]].isna().all()
    assert (frame["problem"] != "").sum() == 1


def test_real_scans(shared_scans: Path, tmp_path: Path) -> None:
    from fmct.index import COMMAND as INDEX
    from fmct.preprocess import COMMAND as PREPROCESS

    key, manifest = str(tmp_path / "key"), str(tmp_path / "m.csv")
    root = ["--root", str(shared_scans)]
    assert main(INDEX, [str(shared_scans), "--out", manifest, "--key-file", key, *root]) in {0, 3}
    cache = str(tmp_path / "cache")
    assert main(PREPROCESS, [manifest, "--cache", cache, "--spacing-mm", "3", "--shape-voxels", "72", *root]) in {0, 3}
    figures = tmp_path / "t.csv"
    arguments = [cache, "--manifest", manifest, *root, "--out", str(tmp_path / "qc.html"), "--table", str(figures)]
    assert main(COMMAND, arguments) == 0
    found = pd.read_csv(figures)
    patient = found[(found["manufacturer"] == "GE MEDICAL SYSTEMS")].iloc[0]
    assert 25 < patient["brain_hu"] < 40
    assert -1024 < patient["air_hu"] < -930
    assert patient["source_tilt_deg"] == pytest.approx(18.5, abs=0.1)
    assert patient["source_gap_max_mm"] == pytest.approx(7.0, abs=0.01)
    page = (tmp_path / "qc.html").read_text()
    assert "PLASTIC" not in page
    assert "IMPLAUSIBLE_HU: middle of" in page
