"""What can be found in a phantom: the base class, the registry, and the labels that follow from what was drawn.

To add a finding, derive from `Finding` in a file of its own, decorate it with `@register`, and import it in `cohort`
(a bleed: in `bleeds`).
Labels and severities are never measured: they are what the finding was built to be, and tests hold the pictures to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Self, TypeVar

import numpy as np

from fmct.data.phantom.brain import BrainPoints
from fmct.data.phantom.head import HeadParameters
from fmct.data.phantom.shapes import Array
from fmct.data.phantom.skull import OuterPoints, Shell
from fmct.experiment.config import Config

ANY_BLEED = "ICH"
BLEED_ON = {-1: "BleedLocation-Left", 1: "BleedLocation-Right"}  # the patient's left and right


class Finding(Config, ABC):
    """One finding of one head; its fields are drawn once by `draw` and fix everything about it.

    Attributes:
        name: how commands and truth tables call it.
        labels: the labels it can set; empty for a distractor.
        bleed: whether it counts as a hemorrhage.
        in_fluid: whether its `paint` needs to know where fluid is.
        severity_names: the columns of `severity`.
    """

    name: ClassVar[str]
    labels: ClassVar[tuple[str, ...]] = ()
    bleed: ClassVar[bool] = False
    in_fluid: ClassVar[bool] = False
    severity_names: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def draw(cls, rng: np.random.Generator, head: HeadParameters, others: Sequence[Finding]) -> Self:
        """Draw one for a head that already has `others`."""

    def severity(self) -> dict[str, float]:
        """Return how severe it is, by severity column."""
        return {}

    def positive(self) -> bool:
        """Return whether it is severe enough to set its labels."""
        return True

    def alter(self, head: HeadParameters) -> HeadParameters:
        """Return the anatomy that the finding makes of a head's; size, skull and pose stay as they are."""
        return head

    def press(self, head: HeadParameters, points_mm: Array) -> Array | None:
        """Return how far the skull is pressed in at (3, N) points, (N,) mm, or None where it is nowhere."""
        return None

    def reshape(self, head: HeadParameters, points_mm: Array, shell: Shell) -> None:
        """Change in place how thick bone and scalp are at (3, N) points outside the cavity."""

    def paint_outside(self, head: HeadParameters, hu: Array, at: OuterPoints) -> Array | None:
        """Lay what the finding does to bone and scalp into `hu`, (N,), in place; return its share of each voxel."""
        return None

    def sides(self) -> frozenset[int]:
        """Return the sides of the head on which it lies, 1 right and -1 left; none for what lies in the midline."""
        return frozenset()

    def displacement(self, head: HeadParameters, points_mm: Array, depth_mm: Array) -> Array | None:
        """Return how far the tissue now at each point has been pushed, (3, N) mm, or None where it pushes nothing.

        Args:
            head: whose head.
            points_mm: (3, N) points in the cavity, in the head's frame.
            depth_mm: (N,) their depth under the inner table.
        """
        return None

    def paint(self, head: HeadParameters, hu: Array, at: BrainPoints) -> Array | None:
        """Lay the finding into `hu`, (N,), in place.

        Returns:
            Its share of each voxel, (N,) in [0, 1], or None for a finding without a body.
        """
        return None


FINDINGS: dict[str, type[Finding]] = {}
FindingClass = TypeVar("FindingClass", bound=type[Finding])


def register(finding: FindingClass) -> FindingClass:
    """Add a class of findings to the registry under its name; the order of registration is that of the columns.

    Raises:
        ValueError: when another class has the name already.
    """
    if FINDINGS.get(finding.name, finding) is not finding:
        raise ValueError(f"a finding called {finding.name} is registered already: {FINDINGS[finding.name]}")
    FINDINGS[finding.name] = finding
    return finding


def label_names() -> list[str]:
    """Return all labels that registered findings can set, those of any bleed first."""
    own = dict.fromkeys(label for finding in FINDINGS.values() for label in finding.labels)
    return [ANY_BLEED, *BLEED_ON.values(), *own]


def severity_names() -> list[str]:
    """Return all severity columns of the registered findings."""
    return list(dict.fromkeys(name for finding in FINDINGS.values() for name in finding.severity_names))


def labels_of(findings: Iterable[Finding]) -> dict[str, int]:
    """Return 1 or 0 for every label of the registry, by construction."""
    labels = dict.fromkeys(label_names(), 0)
    for finding in findings:
        if finding.positive():
            labels.update(dict.fromkeys(finding.labels, 1))
            if finding.bleed:
                labels |= dict.fromkeys([ANY_BLEED, *(BLEED_ON[side] for side in finding.sides())], 1)
    return labels


def severities_of(findings: Iterable[Finding]) -> dict[str, float]:
    """Return every severity of the registry, 0 where there is no such finding; of two alike the worse counts."""
    severities = dict.fromkeys(severity_names(), 0.0)
    for finding in findings:
        for name, value in finding.severity().items():
            severities[name] = max(severities[name], value)
    return severities


def draw_findings(rng: np.random.Generator, head: HeadParameters, names: Sequence[str]) -> tuple[Finding, ...]:
    """Draw the named findings of one head, each knowing those before it.

    Raises:
        KeyError: for a name that isn't registered.
    """
    findings: list[Finding] = []
    for name in names:
        findings.append(FINDINGS[name].draw(rng, head, findings))
    return tuple(findings)


def altered(head: HeadParameters, findings: Iterable[Finding]) -> HeadParameters:
    """Return the anatomy that all findings together make of a head's."""
    for finding in findings:
        head = finding.alter(head)
    return head
