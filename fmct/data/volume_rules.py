"""The rules that a scan must keep to become a volume, whatever the preset: its values are HU, and it shows a head."""

from __future__ import annotations

from fmct.data.geometry import SliceStack
from fmct.data.look import looked_at
from fmct.data.plausibility import implausible_hu
from fmct.data.recognition import EnclosedBrain, enclosed_brain, too_little
from fmct.data.rejection import RejectCode, ScanError


def checked_brain(stack: SliceStack, name: str, skip: frozenset[RejectCode]) -> EnclosedBrain:
    """Check a scan by both rules, and return what was found of a brain.

    Args:
        stack: the scan as measured.
        name: how errors call the scan.
        skip: which of IMPLAUSIBLE_HU and NOT_A_HEAD are switched off for it.

    Raises:
        ScanError: IMPLAUSIBLE_HU when the values are no HU; NOT_A_HEAD when it shows none.
    """
    problem = None if RejectCode.IMPLAUSIBLE_HU in skip else implausible_hu(stack.hu)
    if problem:
        raise ScanError(RejectCode.IMPLAUSIBLE_HU, name, problem)
    brain = enclosed_brain(looked_at(stack))
    problem = None if RejectCode.NOT_A_HEAD in skip else too_little(brain)
    if problem:
        raise ScanError(RejectCode.NOT_A_HEAD, name, problem)
    return brain
