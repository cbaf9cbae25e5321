"""`fmct phantom`: the cohort on disk is what truth.csv says, and the same bytes each time."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest

from fmct.console.command import main
from fmct.console.errors import FmctError
from fmct.data.phantom.case_mix import ALL, CORE, SITE_PREVALENCE, deal
from fmct.data.phantom.cohort import CohortConfig, make, truth_columns
from fmct.data.phantom.findings import FINDINGS, label_names
from fmct.data.phantom.head import draw_head
from fmct.data.phantom.making import made
from fmct.data.phantom.scanner import SCANNERS, Overrides
from fmct.phantom import COMMAND

COARSE = ["--pixel-mm", "5", "--slice-mm", "8"]
OVERRIDES = Overrides(pixel_mm=5.0, slice_mm=8.0)
CORE_MEANS_HU = {
    3: [
        -953.77, -929.37, -994.27, -710.56, -539.41, -863.25, -880.49, -737.61, -900.8, -529.12, -451.94, -849.52,
        194.53, 49.52, -219.37, -364.59, -180.71, -651.44, -957.26, -967.32, -998.91, -725.35, -600.27, -914.09,
        -890.08, -755.67, -911.97,
    ],
    11: [
        -1320.13, -1307.83, -1442.71, -516.98, -519.68, -858.67, -1296.34, -1229.7, -1393.37, -385.3, -305.95,
        -826.47, 234.75, 30.89, -191.64, -248.98, -258.26, -710.08, -1323.28, -1273.67, -1440.7, -520.12, -507.61,
        -839.7, -1287.34, -1244.3, -1390.65,
    ],
}  # fmt: skip


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
    assert list(truth) == truth_columns()
    assert list(truth)[:8] == ["path", "patient_id", "site", "scanner", "seed", "format", "slice_mm", "tilt_deg"]
    assert {f"label:{name}" for name in label_names()} <= set(truth)
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
    kinds = {f"label:{name}" for finding in FINDINGS.values() if finding.bleed for name in finding.labels}
    assert (truth["label:ICH"] == truth[sorted(kinds)].max(axis=1)).all()
    assert ((truth["mass_effect_mm"] >= 2.5) == (truth["label:MassEffect"] == 1)).all()
    assert (truth["label:MassEffect"] >= truth["label:MidlineShift"]).all()
    assert ((truth["IPH_ml"] > 0) == (truth["label:IPH"] == 1)).all()
    assert (truth["label:SDH"] == 1)[truth["SDH_mm"] > 0].all()
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


def test_the_header_has_the_age_at_which_dementia_occurs(tmp_path: Path) -> None:
    plan = CohortConfig(scans=120, sites=1, format="dicom", overrides=OVERRIDES).build()
    young = [
        case
        for case in plan
        if "ADRD" in case.findings and draw_head(np.random.default_rng([case.seed, 0])).age_years < 60
    ]
    make(young[0], tmp_path)
    assert int(pydicom.dcmread(tmp_path / young[0].path / "0001.dcm").PatientAge.removesuffix("Y")) >= 60


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
    plan = CohortConfig(scans=210, prevalence=0.4, findings="core").build()
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
    share = np.mean([any(FINDINGS[name].bleed for name in case.findings) for case in plan])
    assert share == pytest.approx(prevalence, abs=0.11)


def test_dealing_keeps_the_shares() -> None:
    hands = deal(np.random.default_rng(0), CORE.bleeds, 100)
    for names, weight in CORE.bleeds:
        assert hands.count(names) == pytest.approx(100 * weight, abs=1)
    assert deal(np.random.default_rng(0), CORE.bleeds, 0) == []


def test_every_finding_is_dealt_often_enough_to_be_tested() -> None:
    """At 1,500 scans and a prevalence of one half, 6 % are 90 scans of each label."""
    assert len(ALL.site_odds) == len(CORE.site_odds) == len(SITE_PREVALENCE) >= len(SCANNERS)
    shares: dict[str, list[float]] = {}
    for odds, prevalence in zip(ALL.site_odds, SITE_PREVALENCE, strict=True):
        at_site: dict[str, float] = {}
        for weighted, part in ((ALL.bleeds, 0.5 * prevalence), (ALL.others, 1 - 0.5 * prevalence)):
            weights = [weight * np.prod([odds.get(name, 1.0) for name in names]) for names, weight in weighted]
            for (names, _), weight in zip(weighted, weights, strict=True):
                for name in {{"AcuteInfarct": "Edema", "VasogenicEdema": "Edema"}.get(name, name) for name in names}:
                    at_site[name] = at_site.get(name, 0.0) + part * weight / sum(weights)
        for name, share in at_site.items():
            shares.setdefault(name, []).append(share)
    assert set(shares) == {
        "IPH", "IVH", "SDH", "EDH", "SAH", "ChronicSDH", "MidlineShift", "Fracture", "Tumor", "Edema", "Hydrocephalus",
        "ADRD",
    }  # fmt: skip
    for name, at_sites in shares.items():
        assert np.mean(at_sites) > 0.065, name
        assert min(at_sites) > 0.03, name
    assert max(np.ptp(at_sites) / np.mean(at_sites) for at_sites in shares.values()) > 0.8  # hospitals differ


def test_only_what_is_registered_is_dealt_and_mass_effect_comes_last() -> None:
    plan = CohortConfig(scans=300).build()
    assert {name for case in plan for name in case.findings} <= set(FINDINGS)
    assert {"Tumor", "VasogenicEdema", "AcuteInfarct", "Hydrocephalus", "ADRD", "Fracture", "VascularGroove"} <= {
        name for case in plan for name in case.findings
    }
    assert all(case.findings[-1] == "MassEffect" for case in plan)


def test_the_core_cohort_is_what_it_was() -> None:
    """Held against version 0.1 before other findings came: the plan exactly, two scans by the means of 27 blocks.

    A block has thousands of voxels: one voxel that another processor rounds otherwise doesn't show, a change does.
    """
    plan = CohortConfig(scans=60, findings="core").build()
    digest = hashlib.sha256()
    for case in plan:
        about = (
            case.patient_id,
            case.visit,
            case.site,
            case.scanner,
            case.seed,
            case.findings,
            case.format,
            case.study,
        )
        digest.update(repr(about).encode())
    assert digest.hexdigest() == "48f5c61ce389c401c476580109cf815a661690e14f59501b3f265146d3441cdd"
    assert truth_columns("core")[8:] == [
        "label:ICH", "label:IPH", "label:SDH", "label:MidlineShift", "IPH_ml", "SDH_mm", "midline_shift_mm",
    ]  # fmt: skip


@pytest.mark.parametrize("number", sorted(CORE_MEANS_HU))
def test_core_scans_are_what_they_were(number: int, tmp_path: Path) -> None:
    plan = CohortConfig(scans=24, findings="core", overrides=OVERRIDES).build()
    make(plan[number], tmp_path)
    hu = np.asarray(nib.load(tmp_path / plan[number].path).dataobj, np.float64)
    thirds = [np.array_split(np.arange(size), 3) for size in hu.shape]
    means = [hu[np.ix_(x, y, z)].mean() for x in thirds[0] for y in thirds[1] for z in thirds[2]]
    np.testing.assert_allclose(means, CORE_MEANS_HU[number], atol=0.02)


def test_core_truth_has_the_core_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert phantom(tmp_path / "c", "-n", "2", "--sites", "1", "--format", "nifti", "--findings", "core") == 0
    assert list(pd.read_csv(tmp_path / "c" / "truth.csv")) == truth_columns("core")
    assert "Tumor" not in capsys.readouterr().out


def test_help_names_every_label() -> None:
    words = set(re.findall(r"[\w-]+", COMMAND.__doc__ or ""))
    assert set(label_names()) <= words


def test_more_sites_than_scanners_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert phantom(tmp_path / "c", "-n", "20", "--sites", str(len(SCANNERS) + 1)) == 2
    assert f"there are {len(SCANNERS)} scanners" in capsys.readouterr().err
    assert len({case.site for case in CohortConfig(scans=20, sites=len(SCANNERS)).build()}) == len(SCANNERS)


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
