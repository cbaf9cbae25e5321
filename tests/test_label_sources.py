"""Labels from CQ500's readers, RSNA 2019's slices and diagnosis codes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.uid import generate_uid
from synthetic_series import head_like, stacked, write_series

from fmct.cli import main
from fmct.console.errors import UsageError
from fmct.data.labels.cq500 import cases_of, labels_of_cq500, read_reads, share_of, voted
from fmct.data.labels.dates import days
from fmct.data.labels.ehr import DiagnosisColumns, Window, labels_of_diagnoses, read_diagnoses
from fmct.data.labels.rsna2019 import read_slice_labels
from fmct.data.labels.value_sets import classified, read_value_sets
from fmct.data.manifest import read_manifest
from fmct.data.privacy import keyed_id, read_key

KEY = b"k" * 32


def rows(**columns: Any) -> pd.DataFrame:
    """A manifest in memory."""
    count = max(len(value) for value in columns.values() if isinstance(value, list))
    base: dict[str, Any] = {
        "scan_id": [f"s{n}" for n in range(count)],
        "path": [f"x/{n}" for n in range(count)],
        "format": "dicom",
        "patient_id": [f"p{n}" for n in range(count)],
        "study_id": "",
        "series_id": [f"e{n}" for n in range(count)],
    }
    return pd.DataFrame({**base, **columns}, index=range(count))


def listed(column: pd.Series) -> list[float | None]:
    """Values with None for unknown."""
    return [None if pd.isna(value) else float(value) for value in column]


# --- CQ500 -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def cq500(shared: Path) -> Path:
    return shared / "data" / "labels" / "cq500"


def test_votes_on_all_cases_give_the_published_counts(cq500: Path) -> None:
    facts = json.loads((cq500 / "FACTS.json").read_text())
    reads = read_reads(cq500 / "reads.csv")
    assert list(reads.findings) == facts["findings"]
    assert sorted(reads.cases.tolist()) == list(range(491))
    names = {"majority": "majority(>=2 of 3)", "any": "any", "unanimous": "unanimous", "mean": "majority(>=2 of 3)"}
    for vote, fact in names.items():
        counts = np.nansum(voted(reads.marks, vote), axis=0)  # type: ignore[arg-type]
        assert counts.tolist() == [facts["per_finding"][name][fact] for name in facts["findings"]]
    by_reader = reads.marks.sum(axis=0)
    assert by_reader.T.tolist() == [facts["per_finding"][name]["R1,R2,R3"] for name in facts["findings"]]
    majority = voted(reads.marks, "majority")
    for case, expected in facts["examples_majority"].items():
        row = int(np.flatnonzero(reads.cases == int(case.rsplit("-", 1)[1]))[0])
        assert dict(zip(reads.findings, majority[row].astype(int).tolist(), strict=True)) == expected


def test_every_case_gets_its_votes_by_folder_and_by_patient(cq500: Path) -> None:
    facts = json.loads((cq500 / "FACTS.json").read_text())
    folders = rows(path=[f"CQ500CT{n} CQ500CT{n}/Unknown Study/CT PLAIN THIN" for n in range(491)])
    patients = rows(patient_id=[keyed_id("patient", f"CQ500-CT-{n}", KEY) for n in range(491)])
    by_path = labels_of_cq500(folders, cq500 / "reads.csv")
    by_patient = labels_of_cq500(patients, cq500 / "reads.csv", key=KEY)
    pd.testing.assert_frame_equal(by_path.values, by_patient.values)
    assert by_path.counts["reads of a bleed's kind without ICH, kept as they are"] == 2
    assert len(facts["reader_marks_subtype_but_not_ICH"]) == 2
    positive = (by_path.values == 1).sum()
    assert {name.removeprefix("label:"): int(count) for name, count in positive.items()} == {
        name: counts["majority(>=2 of 3)"] for name, counts in facts["per_finding"].items()
    }


def test_the_four_spellings_of_a_case_in_the_layout_as_downloaded(cq500: Path) -> None:
    layout = pd.read_csv(cq500 / "layout_sample.csv")
    cases = layout["case_id"].tolist()
    expected = [int(case.rsplit("-", 1)[1]) for case in cases]
    known = list(range(491))
    for paths in (
        layout["series_dir"].tolist(),
        [f"{case}/{folder}" for case, folder in zip(cases, layout["series_dir"], strict=True)],
        [f"{case}.zip" for case in cases],
        [f"nifti/cq500_ct_{case.rsplit('-', 1)[1].zfill(3)}.nii.gz" for case in cases],
    ):
        found, counts = cases_of(rows(path=paths), known, None)
        assert found.tolist() == expected
        assert counts["scans known by their path"] == len(cases)
    for spelling in ("CQ500-CT-{}", "CQ500CT{}", "CQ500CT{0} CQ500CT{0}", "CQ500-CT-{}.zip"):
        hashes = [keyed_id("patient", spelling.format(n), KEY) for n in expected]
        assert cases_of(rows(patient_id=hashes), known, KEY)[0].tolist() == expected


def test_a_path_that_is_no_case_names_none() -> None:
    paths = ["CQ500-CTA-10", "XCQ500CT10", "CQ500CT10b", "CQ5000CT10", "CQ500", "a/b"]
    assert cases_of(rows(path=paths), range(491), None)[0].isna().all()


def test_contradicting_path_and_patient_name_the_scan() -> None:
    other = keyed_id("patient", "CQ500-CT-0", KEY)
    with pytest.raises(UsageError, match="scan s1 is of CQ500-CT-0 and CQ500-CT-9: its path and its patient differ"):
        cases_of(rows(path=["CQ500-CT-8", "CQ500-CT-9"], patient_id=["anyone", other]), range(491), KEY)
    with pytest.raises(UsageError, match="so says its path"):
        cases_of(rows(path=["CQ500-CT-8/CQ500CT9 CQ500CT9/x"]), range(491), None)


def test_blank_reads_stay_out_of_the_vote() -> None:
    blank = np.nan
    marks = np.array([[1, 0, blank], [1, 1, blank], [0, 0, blank], [1, blank, blank], [1, 1, 0]])[:, :, None]
    votes = {vote: listed(pd.Series(voted(marks, vote)[:, 0])) for vote in ("majority", "any", "unanimous")}  # type: ignore[arg-type]
    assert votes["majority"] == [None, 1, 0, None, 1]
    assert votes["any"] == [1, 1, 0, None, 1]
    assert votes["unanimous"] == [0, 1, 0, None, 0]
    assert listed(pd.Series(share_of(marks)[:, 0])) == [0.5, 1, 0, None, pytest.approx(2 / 3, abs=1e-6)]


def reads_file(folder: Path, *lines: str) -> Path:
    path = folder / "reads.csv"
    path.write_text("\n".join(["name,Category,R1:ICH,R2:ICH,R3:ICH,R1:SDH,R2:SDH,R3:SDH", *lines]))
    return path


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["CQ500-CT-1,B1,1,1,1,0,0,0", "CQ500-CT-1,B1,1,1,1,0,0,1"], "comes twice with different reads"),
        (["CQ500-CT-1,B1,1,1,2,0,0,0"], "R3:ICH is 2; a read is 1, 0 or blank"),
        (["Jane Doe,B1,1,1,1,0,0,0"], "the name is no case of CQ500"),
    ],
)
def test_bad_reads_are_refused(tmp_path: Path, lines: Sequence[str], expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        read_reads(reads_file(tmp_path, *lines))
    assert "Jane" not in str(caught.value)


def test_the_command_on_a_real_slice(shared_scans: Path, cq500: Path, tmp_path: Path) -> None:
    """The one real slice of CQ500, stacked: found by its PatientID; a copy under a folder's name by that."""
    source = pydicom.dcmread(shared_scans / "dicom" / "single_files" / "693_UNCR.dcm")
    assert source.PatientID == "CQ500-CT-310"
    for folder, patient in (("anything", "CQ500-CT-310"), ("CQ500CT52 CQ500CT52/Unknown Study/CT Plain", "ANON")):
        (tmp_path / "scans" / folder).mkdir(parents=True)
        study, series = generate_uid(), generate_uid()
        for k in range(24):
            x, y, _ = source.ImagePositionPatient
            source.ImagePositionPatient = [x, y, 5.0 * k]
            source.PatientID, source.StudyInstanceUID, source.SeriesInstanceUID = patient, study, series
            source.SOPInstanceUID = source.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            source.save_as(tmp_path / "scans" / folder / f"{k}.dcm")
    manifest, out = tmp_path / "scans" / "m.csv", tmp_path / "scans" / "labeled.csv"
    key = ["--key-file", str(tmp_path / "key")]
    assert main(["index", str(tmp_path / "scans"), "--out", str(manifest), *key]) == 0
    command = ["label", str(manifest), "--source", "cq500", "--table", str(cq500 / "reads.csv"), "--out", str(out)]
    assert main([*command, *key, "--vote", "mean"]) == 0
    frame = read_manifest(out).set_index("path")
    reads = pd.read_csv(cq500 / "reads.csv").set_index("name")
    for path, case in (("anything", "CQ500-CT-310"), ("CQ500CT52 CQ500CT52/Unknown Study/CT Plain", "CQ500-CT-52")):
        for finding in ("ICH", "IPH", "SAH", "MassEffect"):
            marks = [int(reads.loc[case, f"R{reader}:{finding}"]) for reader in (1, 2, 3)]
            assert frame.loc[path, f"label:{finding}"] == (sum(marks) >= 2)
            assert float(frame.loc[path, f"soft:{finding}"]) == pytest.approx(sum(marks) / 3, abs=1e-6)
    read_key(tmp_path / "other")
    assert main([*command, "--key-file", str(tmp_path / "other")]) == 0  # paths need no key
    assert read_manifest(out)["label:ICH"].notna().sum() == 1


# --- RSNA 2019 -------------------------------------------------------------------------------------------------------

KINDS = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")


def lines_of(image: str, *present: str) -> list[str]:
    marked = {*present, "any"} if present else set()
    return [f"{image}_{kind},{int(kind in marked)}" for kind in KINDS]


@pytest.fixture
def rsna(tmp_path: Path) -> tuple[Path, list[list[str]]]:
    """Four series of 24 slices in one folder, as downloaded; the manifest and the image ids of each."""
    series = [[f"ID_{s:04x}{k:05x}" for k in range(24)] for s in range(4)]
    series[3][5] = "ID_6431af929"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these UIDs are none
        for number, images in enumerate(series):
            write_series(
                tmp_path / "stage_2_train",
                head_like(24, 128, 128),
                stacked(24),
                pixel_mm=(1.8, 1.8),
                names=[f"{image}.dcm" for image in images],
                SOPInstanceUID=list(images),
                StudyInstanceUID=f"ID_st{number}",
                SeriesInstanceUID=f"ID_se{number}",
                PatientID=f"ID_p{number}",
            )
    manifest = tmp_path / "m.csv"
    key = ["--key-file", str(tmp_path / "key")]
    assert main(["index", str(tmp_path / "stage_2_train"), "--out", str(manifest), *key]) == 0
    return manifest, series


def label_rsna(manifest: Path, lines: Sequence[str], *more: str) -> int:
    table = manifest.parent / "train.csv"
    table.write_text("\n".join(lines) + "\n")
    out = str(manifest.parent / "labeled.csv")
    return main(["label", str(manifest), "--source", "rsna2019", "--table", str(table), "--out", out, *more])


def of_series(manifest: Path) -> dict[str, list[float | None]]:
    """The labels ICH, EDH, IPH, IVH, SAH, SDH of each series, by its patient."""
    frame = read_manifest(manifest.parent / "labeled.csv")
    names = [f"label:{name}" for name in ("ICH", "EDH", "IPH", "IVH", "SAH", "SDH")]
    key = read_key(manifest.parent / "key")
    numbers = {keyed_id("patient", f"ID_p{n}", key): str(n) for n in range(4)}
    return {numbers[row["patient_id"]]: listed(row[names]) for _, row in frame.iterrows()}


def test_a_series_has_the_greatest_label_of_its_slices(
    rsna: tuple[Path, list[list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, series = rsna
    lines = ["ID,Label"]
    for number, images in enumerate(series):
        for k, image in enumerate(images):
            if (number, k) != (2, 7):  # one slice of the third series has no rows
                lines += lines_of(
                    image, *{(1, 3): ["subdural"], (1, 4): ["subdural"], (2, 0): ["epidural"]}.get((number, k), ())
                )
    lines += lines_of("ID_aaaaaaaaa") + lines[1:7]  # an image that isn't there, and rows that come twice
    assert label_rsna(manifest, lines) == 0
    assert of_series(manifest) == {
        "0": [0, 0, 0, 0, 0, 0],
        "1": [1, 0, 0, 0, 0, 1],
        "2": [1, 1, None, None, None, None],
        "3": [None] * 6,  # one of its slices is the damaged one
    }
    out = capsys.readouterr().out
    for count, what in {
        96: "slices read",
        2: "series with slices not or not fully labeled, whose negatives are unknown",
        1: "slices without a label row",
        6: "rows that were there twice, with the same label",
    }.items():
        assert f"{count}  {what}" in out
    assert "1  labeled images that aren't among the scans on disk" in out
    assert "ID_6431af929" in out
    text = (manifest.parent / "labeled.csv").read_text()
    assert label_rsna(manifest, [f",{lines[0]}", *(f"{n},{line}" for n, line in enumerate(lines[1:]))]) == 0
    assert (manifest.parent / "labeled.csv").read_text() == text  # an unnamed index column changes nothing
    (manifest.parent / "stage_2_train" / f"{series[0][9]}.dcm").unlink()
    assert label_rsna(manifest, lines, "--columns", "ICH,SDH") == 0
    frame = read_manifest(manifest.parent / "labeled.csv")
    assert [name for name in frame if name.startswith("label:")] == ["label:ICH", "label:SDH"]
    assert "1  series with slices that can't be read any more" in capsys.readouterr().out
    assert sorted(map(str, listed(frame["label:SDH"]))) == ["1.0", "None", "None", "None"]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_files_named_after_images_are_found_where_headers_were_changed(rsna: tuple[Path, list[list[str]]]) -> None:
    manifest, series = rsna
    for path in (manifest.parent / "stage_2_train").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.save_as(path)
    lines = ["ID,Label", *(line for images in series for image in images for line in lines_of(image))]
    assert label_rsna(manifest, lines) == 0
    assert of_series(manifest)["0"] == [0] * 6
    first, second = series[0][:2]
    folder = manifest.parent / "stage_2_train"
    dataset = pydicom.dcmread(folder / f"{first}.dcm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = second
        dataset.save_as(folder / f"{first}.dcm")
    assert label_rsna(manifest, lines) == 2  # the header says one labeled image, the name another


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["ID,Label", *(line[:-1] + "0.5" for line in lines_of("ID_0"))], "Label is 0.5: this is a sample submission"),
        (["ID,Label", *lines_of("ID_0"), "ID_0_any,1"], "the rows of one ID have different labels"),
        (["ID,Label", *lines_of("ID_0"), "ID_0_stroke,1"], "line 8"),
        (["ID,Label", "ID_0_any,"], "Label is neither 1 nor 0"),
        (["ID,Lable", *lines_of("ID_0")], "did you mean Lable?"),
        (["ID,Label"], "the table has no rows"),
        (["ID,Label", *lines_of("ID_0")], "none of the 96 slices"),
    ],
)
def test_bad_slice_labels_are_refused(
    rsna: tuple[Path, list[list[str]]], capsys: pytest.CaptureFixture[str], lines: list[str], expected: str
) -> None:
    assert label_rsna(rsna[0], lines) == 2
    assert expected in capsys.readouterr().err


def test_image_hashes_are_looked_up(tmp_path: Path) -> None:
    names = [f"ID_{n:09x}" for n in range(500)]
    (tmp_path / "t.csv").write_text("\n".join(["ID,Label", *(line for name in names for line in lines_of(name))]))
    labels = read_slice_labels(tmp_path / "t.csv")
    assert labels.values.shape == (500, 6)
    assert (labels.values == 0).all()
    assert labels.rows_of(labels.hashes[::-1]).tolist() == list(range(500))[::-1]
    assert labels.rows_of(np.array([0, 2**64 - 1], np.uint64)).tolist() == [-1, -1]


# --- diagnoses -------------------------------------------------------------------------------------------------------

SETS = read_value_sets()


def meaning(label: str, code: str) -> str:
    means, leaves_open = classified(SETS, [code])[label]
    return "yes" if means[0] else "open" if leaves_open[0] else "no"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("I61.9", {"ICH": "yes", "IPH": "yes", "IVH": "open", "SDH": "no"}),
        ("i619", {"ICH": "yes", "IPH": "yes"}),
        (" I61.5", {"ICH": "yes", "IPH": "open", "IVH": "yes"}),
        ("I62.9", {"ICH": "yes", "IPH": "open", "IVH": "open", "SDH": "open", "EDH": "open", "SAH": "open"}),
        ("I62.03", {"ICH": "yes", "SDH": "yes", "EDH": "no"}),
        ("I62.1", {"ICH": "yes", "EDH": "yes", "SDH": "no"}),
        ("I60.7", {"ICH": "yes", "SAH": "yes"}),
        ("S06.340A", {"ICH": "yes", "IPH": "yes"}),
        ("S06340D", {"ICH": "open", "IPH": "open"}),
        ("S06.4X1A", {"ICH": "yes", "EDH": "yes", "IPH": "no"}),
        ("S06.5X9A", {"ICH": "yes", "SDH": "yes"}),
        ("S06.5X9S", {"ICH": "open", "SDH": "open", "EDH": "open"}),
        ("S06.6X0A", {"ICH": "yes", "SAH": "yes"}),
        ("S06.310A", {"ICH": "open", "IPH": "open"}),
        ("S06.0X0A", {"ICH": "no", "Edema": "no"}),
        ("S06.1X0A", {"Edema": "yes", "ICH": "no"}),
        ("I69.154", {"ICH": "open", "IPH": "open"}),
        ("Z86.73", {"ICH": "open"}),
        ("I63.9", {"ICH": "no", "Edema": "no"}),
        ("C79.31", {"Tumor": "yes"}),
        ("Z85.841", {"Tumor": "open"}),
        ("C50.911", {"Tumor": "no"}),
        ("G91.2", {"Hydrocephalus": "yes"}),
        ("Z98.2", {"Hydrocephalus": "open"}),
        ("G93.6", {"Edema": "yes"}),
        ("G30.9", {"ADRD": "yes"}),
        ("F02.80", {"ADRD": "yes"}),
        ("G31.84", {"ADRD": "open"}),
        ("G31.09", {"ADRD": "yes"}),
        ("430", {"SAH": "yes", "ICH": "yes"}),
        ("432.1", {"SDH": "yes", "ICH": "yes"}),
        ("852.21", {"SDH": "yes", "SAH": "no"}),
        ("430999001", {"SAH": "no", "ICH": "no"}),  # SNOMED CT
        ("J45.909", dict.fromkeys(SETS, "no")),
    ],
)
def test_what_codes_mean(code: str, expected: dict[str, str]) -> None:
    assert {label: meaning(label, code) for label in expected} == expected


def test_the_shipped_value_sets_are_the_ten_tasks() -> None:
    assert list(SETS) == ["ICH", "IPH", "IVH", "SDH", "EDH", "SAH", "Tumor", "Hydrocephalus", "Edema", "ADRD"]
    for name, one in SETS.items():
        for code in one.codes:
            assert meaning(name, code) == "yes", f"{name} {code}"
    for kind in SETS["ICH"].includes:
        assert all(meaning("ICH", code) == "yes" for code in SETS[kind].codes)
        for code in SETS[kind].ambiguous:  # a bleed whose kind is open may be a bleed for sure, never none
            assert meaning("ICH", code.replace("?", "0")) in {"yes", "open"}


DAY = 18000.0  # some day, since 1970


def date(offset: int) -> str:
    return (pd.Timestamp(0) + pd.Timedelta(days=DAY + offset)).strftime("%Y-%m-%d")


@pytest.mark.parametrize(
    ("diagnoses", "expected"),
    [
        ([("I61.9", -30)], 1),
        ([("I61.9", 30)], 1),
        ([("I61.9", -31)], None),
        ([("I61.9", 31)], None),
        ([("I61.9", -400), ("I61.9", 2)], 1),
        ([("J45", 0)], 0),
        ([("J45", -4000)], 0),
        ([("J45", 0), ("I69.1", 0)], None),
        ([("J45", 0), ("Z86.73", -900)], None),
        ([("I69.1", 0), ("S06.5X0A", 1)], 1),
        ([("S06.5X0S", 1)], None),
        ([("I61.9", None)], None),
        ([("J45", None)], 0),
        ([("", 0)], None),
        ([], None),
    ],
)
def test_a_label_needs_a_code_in_the_window(
    tmp_path: Path, diagnoses: list[tuple[str, int | None]], expected: float | None
) -> None:
    manifest = rows(patient_id=[keyed_id("patient", "MRN1", KEY), keyed_id("patient", "MRN2", KEY)])
    lines = [f"MRN1,{code},{'' if day is None else date(day)}" for code, day in diagnoses]
    (tmp_path / "d.csv").write_text("\n".join(["patient,code,date", *lines, "MRN2,J45,", "MRN9,I61,2019-01-01"]))
    table, _ = read_diagnoses(manifest, tmp_path / "d.csv", DiagnosisColumns(), KEY)
    dates = pd.Series([DAY, DAY])
    found = labels_of_diagnoses(manifest, table, dates, SETS, ["ICH"], Window())
    assert listed(found.values["label:ICH"]) == [expected, 0]
    unknown = labels_of_diagnoses(manifest, table, dates * np.nan, SETS, ["ICH"], Window())
    assert listed(unknown.values["label:ICH"]) == [None, None]


def test_the_window_may_be_lopsided(tmp_path: Path) -> None:
    manifest = rows(patient_id=["a", "b", "c"])
    (tmp_path / "d.csv").write_text(f"patient,code,date\na,I61,{date(-3)}\nb,I61,{date(3)} 23:59:00\nc,I61,{date(4)}\n")
    table, _ = read_diagnoses(manifest, tmp_path / "d.csv", DiagnosisColumns(), None)
    window = Window(before_days=2, after_days=3)
    found = labels_of_diagnoses(manifest, table, pd.Series([DAY] * 3), SETS, ["ICH", "IPH"], window)
    assert listed(found.values["label:ICH"]) == [None, 1, None]
    assert found.counts["labels left empty because their codes lie outside the window"] == 4


def test_dates_are_read_strictly() -> None:
    table = Path("t.csv")
    texts = pd.Series(["1970-01-02", "19700102", "1970/01/02", "1970-01-02T11:00", "1970.01.02 11:00", " "])
    assert listed(days(texts, "date", table)) == [1, 1, 1, 1, 1, None]
    for wrong in ("02.01.1970", "1970-13-01", "1970-1-2", "0201-01-01", "2999-01-01", "1970-0102", "yesterday"):
        with pytest.raises(UsageError, match=r"t\.csv, line 3") as caught:
            days(pd.Series(["2019-01-01", wrong]), "date", table)
        assert wrong not in str(caught.value)


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """Two patients' scans in one folder, on two days."""
    for patient, study_date in (("MRN001", "20190405"), ("MRN002", "20200101")):
        names = [f"{patient}_{k}.dcm" for k in range(24)]
        hu = head_like(24, 128, 128, seed=int(study_date))
        tags = {"PatientID": patient, "StudyDate": study_date}
        write_series(tmp_path / "scans" / "flat", hu, stacked(24), pixel_mm=(1.8, 1.8), names=names, **tags)
    key = ["--key-file", str(tmp_path / "key")]
    assert main(["index", str(tmp_path / "scans"), "--out", str(tmp_path / "scans" / "m.csv"), *key]) == 0
    return tmp_path


def label_ehr(hospital: Path, table: str, *more: str) -> int:
    (hospital / "dx.csv").write_text(table)
    manifest, out = hospital / "scans" / "m.csv", hospital / "scans" / "labeled.csv"
    command = ["label", str(manifest), "--source", "ehr", "--table", str(hospital / "dx.csv"), "--out", str(out)]
    return main([*command, "--key-file", str(hospital / "key"), *more])


def by_patient(hospital: Path, label: str) -> dict[str, float | None]:
    frame = read_manifest(hospital / "scans" / "labeled.csv")
    key = read_key(hospital / "key")
    known = dict(zip(frame["patient_id"], listed(frame[f"label:{label}"]), strict=True))
    return {patient: known[keyed_id("patient", patient, key)] for patient in ("MRN001", "MRN002")}


DIAGNOSES = "mrn,dx,when\nMRN001,I61.9,2019-04-06\nMRN001,G30.9,2012-01-01\nMRN002,I61.9,2019-04-06\nMRN002,Z00,\n"
NAMED = ("--named", "patient=mrn,code=dx,date=when")


def test_scan_dates_come_from_headers(hospital: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label_ehr(hospital, DIAGNOSES, *NAMED) == 0
    assert by_patient(hospital, "ICH") == {"MRN001": 1, "MRN002": None}
    assert by_patient(hospital, "ADRD") == {"MRN001": None, "MRN002": 0}
    assert by_patient(hospital, "Tumor") == {"MRN001": 0, "MRN002": 0}
    assert label_ehr(hospital, DIAGNOSES, *NAMED, "--before-days", "4000", "--columns", "ADRD,ICH") == 0
    assert by_patient(hospital, "ADRD") == {"MRN001": 1, "MRN002": 0}
    assert by_patient(hospital, "ICH") == {"MRN001": 1, "MRN002": 1}
    seen = capsys.readouterr()
    written = (hospital / "scans" / "labeled.csv").read_text()
    for secret in ("MRN00", "2019", "DOE"):
        assert secret not in seen.out + seen.err + written


def test_scan_dates_come_from_a_table(hospital: Path) -> None:
    frame = read_manifest(hospital / "scans" / "m.csv")
    studies = [pydicom.dcmread(path).StudyInstanceUID for path in sorted((hospital / "scans" / "flat").iterdir())]
    tables = {
        "scan_id": frame["scan_id"].tolist(),
        "study": list(dict.fromkeys(map(str, studies))),
    }
    key = read_key(hospital / "key")
    for on, ids in tables.items():
        wanted = ids if on == "scan_id" else [keyed_id("study", uid, key) for uid in ids]
        column = "scan_id" if on == "scan_id" else "study_id"
        first = frame.loc[frame["patient_id"] == keyed_id("patient", "MRN001", key), column].iloc[0]
        lines = [f"{uid},{'2019-04-05' if hashed == first else ''}" for uid, hashed in zip(ids, wanted, strict=True)]
        (hospital / "dates.csv").write_text("\n".join([f"{on},date", *lines]))
        assert label_ehr(hospital, DIAGNOSES, *NAMED, "--dates", str(hospital / "dates.csv")) == 0
        assert by_patient(hospital, "ICH") == {"MRN001": 1, "MRN002": None}
        assert by_patient(hospital, "Tumor") == {"MRN001": 0, "MRN002": None}  # no date


@pytest.mark.parametrize(
    ("table", "more", "expected"),
    [
        (DIAGNOSES.replace("2012-01-01", "01.01.2012"), NAMED, "line 3"),
        (DIAGNOSES, (), "no column patient"),
        (DIAGNOSES.replace("MRN", "X"), NAMED, "no patient of the table is in the manifest"),
        (DIAGNOSES, ("--named", "patient=mrn,code=mrn,date=when"), "must be three columns"),
        ("patient,code,date\nMRN001,cough,\n", (), "code has no ICD code"),
        (DIAGNOSES, ("--named", "patent=mrn"), "did you mean patient?"),
        (DIAGNOSES, (*NAMED, "--columns", "Hydrocefalus"), "did you mean Hydrocephalus?"),
        (DIAGNOSES, (*NAMED, "--root", "/"), "the scans aren't there"),
    ],
)
def test_bad_diagnoses_are_refused_without_a_name(
    hospital: Path, capsys: pytest.CaptureFixture[str], table: str, more: tuple[str, ...], expected: str
) -> None:
    assert label_ehr(hospital, table, *more) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert "MRN00" not in error
    assert "2012" not in error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A: {meaning: x, codes: [430]}", "A.codes.0: Input should be a valid string"),
        ("A: {meaning: x, codes: ['I6*']}", "is no prefix of a code"),
        ("A: {meaning: x, codes: [I61], includes: [B]}", "A includes B, which isn't there"),
        ("A: {meaning: x, code: [I61]}", "A.codes"),
        ("A: [", "not valid YAML"),
        ("", "no value sets"),
    ],
)
def test_bad_value_sets_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "v.yaml").write_text(text)
    with pytest.raises(UsageError, match=expected.replace(".", r"\.")):
        read_value_sets(tmp_path / "v.yaml")


def test_value_sets_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text(
        "Stroke:\n  meaning: x\n  codes: [&all [I63, '434.?1'], 'I6?.0']\nOther:\n  meaning: y\n  codes: [*all]\n"
    )
    sets = read_value_sets(tmp_path / "v.yaml")
    codes = ["I63.9", "434.11", "434.10", "I65.0", "I65.1"]
    assert classified(sets, codes)["Stroke"][0].tolist() == [True, True, False, True, False]
    assert classified(sets, codes)["Other"][0].tolist() == [True, True, False, False, False]
