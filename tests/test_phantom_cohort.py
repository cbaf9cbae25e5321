"""`fmct phantom`: the cohort on disk is what truth.csv says, and the same bytes each time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from fmct.console.command import main
from fmct.console.errors import FmctError
from fmct.data.phantom.cohort import BLEEDS, CohortConfig, deal, make, truth_columns
from fmct.data.phantom.making import made
from fmct.data.phantom.scanner import Overrides
from fmct.phantom import COMMAND

COARSE = ["--pixel-mm", "5", "--slice-mm", "8"]
OVERRIDES = Overrides(pixel_mm=5.0, slice_mm=8.0)


def phantom(out: Path, *arguments: str) -> int:
    return main(COMMAND, ["--out", str(out), *COARSE, *arguments])


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms") / "cohort"
    assert phantom(out, "-n", "8", "--sites", "2", "--hard-cases") == 0
    return out


def test_truth_names_every_scan_there_is(cohort: Path) -> None:
    truth = pd.read_csv(cohort / "truth.csv", dtype={"patient_id": str})
    assert list(truth) == [
        "path", "patient_id", "site", "scanner", "seed", "format", "slice_mm", "tilt_deg",
        "label:ICH", "label:BleedLocation-Left", "label:BleedLocation-Right", "label:IPH", "label:SDH",
        "label:ChronicBleed", "label:IVH", "label:EDH", "label:SAH", "label:MidlineShift",
        "IPH_ml", "SDH_mm", "ChronicSDH_mm", "IVH_ml", "EDH_mm", "SAH_ml", "midline_shift_mm",
    ]  # fmt: skip
    on_disk = {p.relative_to(cohort).as_posix() for p in cohort.glob("site_*/visit_*/*")}
    assert set(truth["path"]) == on_disk
    assert len(truth) == 8
    for row in truth.itertuples():
        path = cohort / row.path
        assert path.is_dir() if row.format == "dicom" else path.name.endswith(".nii.gz")
        assert row.path.startswith(f"{row.site}/visit_")
        assert path.name.removesuffix(".nii.gz") == row.patient_id
    assert set(truth["format"]) == {"dicom", "nifti"}
    assert truth.groupby("site")["scanner"].unique().map(list).to_dict() == {
        "site_a": ["scanner_a"],
        "site_b": ["scanner_b"],
    }


def test_labels_and_severities_agree(cohort: Path) -> None:
    truth = pd.read_csv(cohort / "truth.csv")
    assert (truth["label:ICH"] == (truth["label:IPH"] | truth["label:SDH"])).all()
    assert (truth["label:ICH"] == (truth["label:BleedLocation-Left"] | truth["label:BleedLocation-Right"])).all()
    assert ((truth["IPH_ml"] > 0) == (truth["label:IPH"] == 1)).all()
    assert ((truth["SDH_mm"] > 0) == (truth["label:SDH"] == 1)).all()
    assert ((truth["midline_shift_mm"] >= 5) == (truth["label:MidlineShift"] == 1)).all()


def test_headers_agree_with_truth(cohort: Path) -> None:
    truth = pd.read_csv(cohort / "truth.csv")
    studies = set()
    series = truth[truth["format"] == "dicom"]
    for row in series.itertuples():
        file = pydicom.dcmread(cohort / row.path / "0001.dcm")
        assert file.PatientID == row.patient_id
        assert float(file.SliceThickness) == row.slice_mm == 8
        assert float(file.GantryDetectorTilt) == row.tilt_deg
        studies.add(file.StudyInstanceUID)
    assert len(studies) == len(series)


def test_a_scan_that_cannot_be_made_in_another_process_is_named(tmp_path: Path) -> None:
    plan = CohortConfig(scans=2, sites=1, overrides=OVERRIDES).build()
    broken = plan[1].model_copy(update={"scanner": "nobody's"})
    with pytest.raises(FmctError, match=r"broke off \(KeyError\)") as raised:
        list(made([plan[0], broken], tmp_path, 2))
    assert raised.value.where == broken.path


def test_same_seed_same_bytes_with_any_number_of_workers(cohort: Path, tmp_path: Path) -> None:
    assert phantom(tmp_path / "again", "-n", "8", "--sites", "2", "--hard-cases", "--workers", "2") == 0
    assert contents(tmp_path / "again") == contents(cohort)
    assert not [p for p in tmp_path.iterdir() if p.name != "again"]


def test_other_seed_other_patients(cohort: Path, tmp_path: Path) -> None:
    assert phantom(tmp_path / "other", "-n", "8", "--sites", "2", "--seed", "1") == 0
    first, other = contents(cohort), contents(tmp_path / "other")
    shared = [name for name in first if name in other and not name.endswith("truth.csv")]
    assert shared
    assert all(first[name] != other[name] for name in shared)


def test_one_scan_can_be_made_alone(cohort: Path, tmp_path: Path) -> None:
    plan = CohortConfig(scans=8, sites=2, overrides=OVERRIDES).build()
    row = make(plan[3], tmp_path)
    assert list(row) == truth_columns()
    made, kept = contents(tmp_path), contents(cohort)
    assert made
    assert all(kept[name] == data for name, data in made.items())


def test_plans_hold_prevalence_mix_and_repeat_visits() -> None:
    plan = CohortConfig(scans=210, prevalence=0.4).build()
    assert len({case.path for case in plan}) == 210
    patients = {case.patient_id: case for case in plan}
    visits = pd.Series([case.patient_id for case in plan]).value_counts()
    assert set(visits) == {1, 2}
    bleeding = [case for case in patients.values() if {"IPH", "SDH"} & set(case.findings)]
    assert len(bleeding) / len(patients) == pytest.approx(0.4, abs=0.01)
    groups = (patients.values(), bleeding)
    patients_at, bleeding_at = (pd.Series([case.site for case in group]).value_counts() for group in groups)
    by_site = bleeding_at / patients_at
    assert by_site["site_a"] < by_site["site_b"] < by_site["site_c"]
    for name in ("IPH", "SDH", "MidlineShift", "SlightShift", "OldInfarct", "Calcification"):
        for site in ("site_a", "site_b", "site_c"):
            share = np.mean([name in case.findings for case in patients.values() if case.site == site])
            assert 0 < share < 0.7, (name, site)
    twice = [case for case in plan if visits[case.patient_id] == 2]
    assert all(patients[case.patient_id].findings == case.findings for case in twice)
    assert len({case.seed for case in plan}) == len(patients)


@pytest.mark.parametrize("prevalence", [0.0, 1.0])
def test_extreme_prevalence_is_kept(prevalence: float) -> None:
    plan = CohortConfig(scans=30, sites=1, prevalence=prevalence).build()
    share = np.mean([bool({"IPH", "SDH"} & set(case.findings)) for case in plan])
    assert share == pytest.approx(prevalence, abs=0.11)


def test_dealing_keeps_the_shares() -> None:
    hands = deal(np.random.default_rng(0), BLEEDS, 100)
    for names, weight in BLEEDS:
        assert hands.count(names) == pytest.approx(100 * weight, abs=1)
    assert deal(np.random.default_rng(0), BLEEDS, 0) == []


def test_outcome_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert phantom(tmp_path / "c", "-n", "2", "--sites", "1", "--format", "nifti", "--prevalence", "1", "--json") == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["scans"] == 2
    assert outcome["positive"]["ICH"] == pd.read_csv(tmp_path / "c" / "truth.csv")["label:ICH"].sum() == 2


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    assert phantom(tmp_path, "-n", "1") == 2
    assert "isn't an empty folder" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_a_field_too_small_for_a_head_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND, ["--out", str(tmp_path / "c"), "-n", "1", "--pixel-mm", "1", "--matrix", "64"]) == 2
    assert "can't hold a head" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
