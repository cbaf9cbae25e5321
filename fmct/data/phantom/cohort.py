"""A cohort of phantoms: which patient has what, where and how often scanned, decided before anything is rendered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, PositiveFloat

# Importing registers the findings, in the order of the truth table's columns.
# isort: off
from fmct.data.phantom import bleeds, mass_effect, fracture, tumor, edema, infarct  # noqa: F401
from fmct.data.phantom import hydrocephalus, dementia, distractors, grooves  # noqa: F401
# isort: on

from fmct.data.lesion_masks import mask_folder
from fmct.data.phantom.acquisition import acquire
from fmct.data.phantom.case_mix import MIXES, SITE_PREVALENCE, MixName, completed, deal
from fmct.data.phantom.findings import altered, draw_findings, label_names, labels_of, severities_of, severity_names
from fmct.data.phantom.head import draw_head, draw_pose
from fmct.data.phantom.masks import write_masks
from fmct.data.phantom.scanner import SCANNERS, Overrides
from fmct.data.phantom.shares import scans_of_sites
from fmct.data.phantom.writer import Identity, write_dicom, write_nifti
from fmct.experiment.config import Config

ONE_IN_TWICE = 7  # scans: so many of a site's scans hold one second scan of a patient
MASKS_FOLDER = ".masks"  # hidden, so that an index of the cohort passes over it


class CohortConfig(Config):
    """What a cohort is like; everything in it follows from this."""

    scans: int = Field(60, ge=1)
    sites: int = Field(3, ge=1, le=len(SCANNERS))
    shares: tuple[PositiveFloat, ...] = Field((), description="of the scans, for each site; none: equal ones")
    seed: int = Field(0, ge=0)
    format: Literal["mixed", "dicom", "nifti"] = "mixed"
    prevalence: float = Field(0.5, ge=0, le=1, description="share of patients with a bleed")
    findings: MixName = Field("all", description="what is dealt, see `case_mix`")
    overrides: Overrides = Overrides()

    def build(self) -> list[Case]:
        """Return all scans of the cohort, in order of site and patient."""
        return list(cases(self))


class Case(Config):
    """One scan that is to be made."""

    patient_id: str
    visit: int = Field(ge=1)
    site: str
    scanner: str
    seed: int = Field(description="of the patient: head and findings; with the visit, of pose and scan")
    findings: tuple[str, ...] = Field(description="names in the registry, in the order of drawing")
    format: Literal["dicom", "nifti"]
    overrides: Overrides

    @property
    def path(self) -> str:
        """Folder or file, relative to the cohort, with forward slashes; its name is the patient's, on every visit.

        A NIfTI file says nowhere else whose it is, and both scans of a patient must stay together when data are split.
        """
        return f"{self.site}/visit_{self.visit}/{self.patient_id}" + (".nii.gz" if self.format == "nifti" else "")

    @property
    def study(self) -> str:
        """A text that differs for each scan that differs."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


def cases(config: CohortConfig) -> Iterator[Case]:
    """Yield the scans of a cohort."""
    mix = MIXES[config.findings]
    sizes = scans_of_sites(config.scans, config.shares or [1.0] * config.sites)
    owed = 0.0  # rounding of one site's bleeds is made good at the next
    number = 0
    for site, (scans, scanner) in enumerate(zip(sizes, SCANNERS, strict=False)):
        letter = scanner.rsplit("_", 1)[-1]
        rng = np.random.default_rng([config.seed, site])
        patients = scans - scans // ONE_IN_TWICE
        owed += patients * min(1.0, config.prevalence * SITE_PREVALENCE[site])
        bleeding = min(patients, round(owed))
        owed -= bleeding
        deck = deal(rng, mix.at_site(mix.bleeds, site), bleeding)
        deck += deal(rng, mix.at_site(mix.others, site), patients - bleeding)
        order = rng.permutation(patients)
        written = 0
        for place, patient in enumerate(order):
            number += 1
            findings = completed(rng, deck[patient], mix)
            for visit in range(1, 3 if place < scans // ONE_IN_TWICE else 2):
                own = config.format if config.format != "mixed" else ("dicom", "nifti")[written % 2]
                written += 1
                yield Case(
                    patient_id=f"{letter.upper()}{place + 1:04d}",
                    visit=visit,
                    site=f"site_{letter}",
                    scanner=scanner,
                    seed=int(np.random.SeedSequence([config.seed, 1, number]).generate_state(1)[0]),
                    findings=findings,
                    format=own,
                    overrides=config.overrides,
                )


def truth_columns(mix: MixName = "all") -> list[str]:
    """Return the columns of the truth table of a mix."""
    about = ["path", "patient_id", "site", "scanner", "seed", "format", "slice_mm", "tilt_deg"]
    return [*about, *(MIXES[mix].columns or [*(f"label:{name}" for name in label_names()), *severity_names()])]


def make(case: Case, cohort: Path, masks: bool = False) -> dict[str, object]:
    """Render, scan and write one case.

    Args:
        case: what to make.
        cohort: folder of the cohort.
        masks: whether to write masks of its lesions too, in the hidden folder `MASKS_FOLDER` of the cohort.

    Returns:
        Its row of the truth table; `slice_mm` is that of its thickest slices.
    """
    rng = np.random.default_rng([case.seed, 0])
    head = draw_head(rng)
    findings = draw_findings(rng, head, case.findings)
    rng = np.random.default_rng([case.seed, case.visit])
    head = head.model_copy(update={"pose": draw_pose(rng)})
    scanner = SCANNERS[case.scanner]
    protocol = scanner.draw(rng, head, case.overrides, even=case.format == "nifti")
    scan = acquire(head, scanner, protocol, rng, findings, lesions=masks)
    if masks:
        write_masks(scan, findings, mask_folder(cohort / MASKS_FOLDER, case.path))
    if case.format == "nifti":
        write_nifti(scan, cohort / case.path)
    else:
        identity = Identity(
            patient_id=case.patient_id,
            age_years=altered(head, findings).age_years,
            sex=head.sex,
            study=case.study,
            study_date=f"2020{case.visit:02d}01",
        )
        write_dicom(scan, cohort / case.path, identity)
    row: dict[str, object] = {
        "path": case.path,
        "patient_id": case.patient_id,
        "site": case.site,
        "scanner": case.scanner,
        "seed": case.seed,
        "format": case.format,
        "slice_mm": f"{max(protocol.slice_mm):g}",
        "tilt_deg": f"{protocol.tilt_deg:g}",
    }
    row |= {f"label:{name}": value for name, value in labels_of(findings).items()}
    row |= {name: f"{value:.2f}" for name, value in severities_of(findings).items()}
    return row
