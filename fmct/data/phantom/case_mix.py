"""What patients come with: combinations of findings with weights, other odds at other hospitals, and distractors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Names = tuple[str, ...]
Weighted = tuple[tuple[Names, float], ...]
MixName = Literal["core", "all"]

CALCIFIED, INFARCTED, SLIGHTLY_SHIFTED = 0.45, 0.12, 0.35  # shares of patients, whatever else they have
GROOVED = 0.3  # share of patients whose bone shows the groove of a vessel, where fractures are dealt
LARGE = {"IPH": "LargeIPH", "SDH": "LargeSDH"}  # what some of these are, where all labels are wanted
LARGE_ALONE, LARGE_SHIFTING = 0.35, 0.75  # share of them that are, without and with a shift of the midline
SITE_PREVALENCE = (0.9, 1.0, 1.1, 1.0)  # of bleeds, against the cohort's


@dataclass(frozen=True)
class CaseMix:
    """What a cohort deals.

    Attributes:
        bleeds: what patients with a bleed have, names in the order of drawing, with weights.
        others: what the rest have.
        site_odds: for each site, by how much the weight of whatever holds a finding is multiplied.
        columns: labels and severities of its truth table; None: all that are registered.
    """

    bleeds: Weighted
    others: Weighted
    site_odds: tuple[Mapping[str, float], ...]
    columns: tuple[str, ...] | None = None

    def at_site(self, weighted: Weighted, site: int) -> Weighted:
        """Return what is dealt, with the weights of one site."""
        odds = self.site_odds[site]
        return tuple(
            (names, weight * float(np.prod([odds.get(name, 1.0) for name in names]))) for names, weight in weighted
        )


CORE = CaseMix(
    bleeds=(
        (("IPH",), 0.26),
        (("IPH", "MidlineShift"), 0.18),
        (("SDH",), 0.24),
        (("SDH", "MidlineShift"), 0.20),
        (("IPH", "SDH"), 0.05),
        (("IPH", "SDH", "MidlineShift"), 0.07),
    ),
    others=((("OldInfarct", "MidlineShift"), 0.08), ((), 0.92)),
    site_odds=({}, {"SDH": 0.65}, {"SDH": 1.5}, {"SDH": 0.8}),
    columns=("label:ICH", "label:IPH", "label:SDH", "label:MidlineShift", "IPH_ml", "SDH_mm", "midline_shift_mm"),
)

ALL = CaseMix(
    bleeds=(
        # pressure and vessels
        (("IPH",), 0.10),
        (("IPH", "MidlineShift"), 0.05),
        (("IPH", "VasogenicEdema"), 0.03),
        (("IPH", "IVH"), 0.07),
        (("IPH", "IVH", "MidlineShift"), 0.05),
        (("IPH", "IVH", "Hydrocephalus"), 0.04),
        (("IVH",), 0.02),
        (("IVH", "Hydrocephalus"), 0.02),
        (("SAH",), 0.09),
        (("SAH", "Hydrocephalus"), 0.03),
        (("SAH", "IVH", "Hydrocephalus"), 0.04),
        # injury
        (("SDH",), 0.09),
        (("SDH", "MidlineShift"), 0.08),
        (("SDH", "SAH"), 0.03),
        (("SDH", "SAH", "Fracture"), 0.04),
        (("SAH", "Fracture"), 0.03),
        (("IPH", "SAH", "Fracture"), 0.03),
        (("EDH",), 0.04),
        (("EDH", "Fracture"), 0.11),
        (("EDH", "Fracture", "MidlineShift"), 0.06),
        # age
        (("ChronicSDH",), 0.08),
        (("ChronicSDH", "MidlineShift"), 0.05),
        (("ChronicSDH", "ADRD"), 0.03),
        (("SDH", "ChronicSDH"), 0.02),
    ),
    others=(
        ((), 0.40),
        (("Tumor",), 0.04),
        (("Tumor", "VasogenicEdema"), 0.11),
        (("Tumor", "VasogenicEdema", "MidlineShift"), 0.04),
        (("Tumor", "Hydrocephalus"), 0.02),
        (("AcuteInfarct",), 0.09),
        (("AcuteInfarct", "MidlineShift"), 0.02),
        (("Hydrocephalus",), 0.08),
        (("ADRD",), 0.15),
        (("Fracture",), 0.05),
    ),
    site_odds=(
        {},
        {"ADRD": 1.4, "ChronicSDH": 1.4, "Fracture": 0.6, "AcuteInfarct": 1.2},  # a town of the old
        {"Fracture": 1.4, "EDH": 1.2, "SDH": 1.3, "ADRD": 0.7, "Tumor": 0.8},  # a trauma center
        {"Tumor": 1.6, "Hydrocephalus": 1.3, "SAH": 1.2, "Fracture": 0.7, "ChronicSDH": 0.8},  # neurosurgery
    ),
)

MIXES: dict[MixName, CaseMix] = {"core": CORE, "all": ALL}


def deal(rng: np.random.Generator, mix: Sequence[tuple[Names, float]], count: int) -> list[Names]:
    """Draw from a mix so that the shares come out as nearly as whole patients allow (systematic sampling)."""
    weights = np.array([weight for _, weight in mix])
    quantiles = (np.arange(count) + rng.random()) / max(count, 1)
    chosen = np.searchsorted(np.cumsum(weights / weights.sum())[:-1], quantiles, side="right")
    return [mix[i][0] for i in chosen]


def completed(rng: np.random.Generator, names: Names, mix: CaseMix) -> Names:
    """Add distractors to what a patient was dealt and, where all labels are wanted, what follows from it."""
    names = with_distractors(rng, names)
    if mix is CORE:
        return names
    large = rng.random() < (LARGE_SHIFTING if "MidlineShift" in names else LARGE_ALONE)
    names = tuple(LARGE.get(name, name) if large else name for name in names)
    if rng.random() < GROOVED:
        names = (*names, "VascularGroove")
    return (*names, "MassEffect")  # the last: it asks all others how far they push


def with_distractors(rng: np.random.Generator, names: Names) -> Names:
    """Add what occurs with and without findings: calcification, an old infarct, a shift too small to count."""
    calcified, infarcted, shifted = rng.random(3) < (CALCIFIED, INFARCTED, SLIGHTLY_SHIFTED)
    if infarcted and "OldInfarct" not in names:
        names = ("OldInfarct", *names)
    if shifted and "MidlineShift" not in names:
        names = (*names, "SlightShift")
    return (*names, "Calcification") if calcified else names
