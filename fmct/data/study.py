"""From the slices of a study to its scans, by their headers: grouped, judged, joined; and why the others aren't usable.

Pixels are read here only where two images lie at the same place, to tell copies from different ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fmct.data.dicom import SliceHeader
from fmct.data.duplicates import without_copies
from fmct.data.geometry import FEWEST_SLICES
from fmct.data.joining import join_parts
from fmct.data.rejection import Reject, RejectCode
from fmct.data.rules import Rules
from fmct.data.scan import Scan, common_folder, scan_from_slices, scan_id_of
from fmct.data.series_rules import (
    EXTENT_RULES,
    SAME_ORIENTATION,
    SLICE_RULES,
    STACK_RULES,
    WHOLE_STACK_RULES,
    has_geometry,
    no_geometry,
    one_for_each_position,
)

REJECTED_IMAGES = "DICOM images in rejected series"


@dataclass
class Judged:
    """The usable scans of a study and the rejected rest.

    Attributes:
        scans: the usable ones.
        rejects: the rest.
        counts: what was left out without being lost.
        settled: whether the same files would be judged alike another time, as far as the disk is concerned.
    """

    scans: list[Scan] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    settled: bool = True

    def reject(
        self, slices: Sequence[SliceHeader], code: RejectCode, detail: str, culprits: Sequence[SliceHeader] = ()
    ) -> None:
        """Reject slices by the deepest folder that holds them, or by the file where it's a single one.

        Args:
            slices: that go with it.
            code: the reason.
            detail: what was found.
            culprits: those of the slices that are to blame, where not all are: then their place is named.
        """
        paths = {header.path for header in culprits or slices}
        path = paths.pop() if len(paths) == 1 else common_folder(list(paths))
        scan_id = scan_id_of(slices) if len(slices[0].orientation_lps) == 6 else ""
        self.rejects.append(Reject(str(path), code, detail, scan_id))
        self.counts[REJECTED_IMAGES] += len(slices)

    def reject_scan(self, scan: Scan, reject: Reject) -> None:
        """Reject a scan, for a reason that is about its path or about one file."""
        self.rejects.append(reject)
        self.counts[REJECTED_IMAGES] += len(scan.slices)


def judge_study(headers: Sequence[SliceHeader], rules: Rules) -> Judged:
    """Turn the slices of a study into scans.

    Slices are grouped by series and orientation. Files of a series that are no axial images (a scout among them) are
    rejected by themselves, and the rest is judged without them.

    Args:
        headers: all slices of the study.
        rules: which rules are on.
    """
    judged = Judged()
    by_series: dict[str, list[SliceHeader]] = {}
    for header in sorted(headers, key=lambda header: (str(header.path), header.frame)):
        by_series.setdefault(header.series_id or str(header.path.parent), []).append(header)
    stacks = [stack for series in by_series.values() for stack in stacks_of_series(series, rules, judged)]
    joined = join_parts(stacks)
    judged.counts["slices shown by both parts of a head"] += joined.overlapping
    whole = list(joined.stacks)
    for part, obstacle in joined.parts:
        if rules.on(RejectCode.SPLIT_HEAD):
            judged.reject(part, RejectCode.SPLIT_HEAD, obstacle)
        else:
            whole.append(part)
    for stack in whole:
        judge_whole(stack, rules, judged)
    return judged


def stacks_of_series(series: Sequence[SliceHeader], rules: Rules, judged: Judged) -> list[list[SliceHeader]]:
    """Return the stacks of a series, one for each orientation, in order and without copies; reject what is none."""
    usable = usable_slices(series, rules, judged)
    problem = no_geometry(usable) if usable else None
    if problem:
        lost = [header for header in usable if not has_geometry(header)]
        judged.reject(usable, RejectCode.NO_GEOMETRY, problem, lost)
        return []
    stacks = []
    groups = split_by_orientation(usable)
    for group in groups:
        mixed = len(groups) > 1 and len(group) < FEWEST_SLICES
        if mixed and rules.on(RejectCode.MIXED_ORIENTATION):
            detail = f"{len(group)} of {len(usable)} slices have this one of {len(groups)} orientations"
            judged.reject(group, RejectCode.MIXED_ORIENTATION, detail)
            continue
        stack = sound_stack(group, rules, judged)
        if stack:
            stacks.append(stack)
    return stacks


def usable_slices(series: Sequence[SliceHeader], rules: Rules, judged: Judged) -> list[SliceHeader]:
    """Return the slices that no slice rule refuses; add one reject for each code among the others."""
    refused: dict[RejectCode, list[SliceHeader]] = {}
    details: dict[RejectCode, str] = {}
    usable = []
    for header in series:
        code, problem = refusal(header, rules)
        if problem:
            refused.setdefault(code, []).append(header)
            details.setdefault(code, problem)
        else:
            usable.append(header)
    for code, slices in refused.items():
        if len(slices) < len(series) and all(header.damage for header in slices):
            for header in slices:  # a few damaged files are named one by one
                judged.reject([header], code, f"{refusal(header, rules)[1]}; the rest was judged without it")
            continue
        rest = "" if len(slices) == len(series) else "; the others were judged without them"
        judged.reject(slices, code, f"{details[code]} ({len(slices)} of {len(series)} images{rest})")
    return usable


def refusal(header: SliceHeader, rules: Rules) -> tuple[RejectCode, str]:
    """Return which rule refuses a slice by itself and what it found, "" where none does."""
    for code, rule in SLICE_RULES:
        problem = rule(header) if rules.on(code) else None
        if problem:
            return code, problem
    name, _, detail = header.damage.partition(": ")
    return (RejectCode[name], detail) if name else (RejectCode.UNREADABLE, "")


def split_by_orientation(series: Sequence[SliceHeader]) -> list[list[SliceHeader]]:
    """Return the slices grouped by orientation."""
    groups: list[list[SliceHeader]] = []
    orientations = np.array([header.orientation_lps for header in series])
    left = np.arange(len(series))
    while len(left):
        alike = np.abs(orientations[left] - orientations[left[0]]).max(axis=1) < SAME_ORIENTATION
        groups.append([series[index] for index in left[alike]])
        left = left[~alike]
    return groups


def sound_stack(group: Sequence[SliceHeader], rules: Rules, judged: Judged) -> list[SliceHeader]:
    """Return slices of one orientation in order and without copies, none when they make no stack."""
    distinct, damaged = without_copies(group)
    for header, error in damaged:
        judged.rejects.append(Reject(str(header.path), error.code, f"{error.detail}; a sound copy is used"))
    judged.counts[REJECTED_IMAGES] += len(damaged)
    judged.counts["identical copies of slices"] += len(group) - len(distinct) - len(damaged)
    for code, rule in STACK_RULES:
        problem = rule(distinct)
        if problem and code is RejectCode.DUPLICATE_POSITION and not rules.on(code):
            kept = one_for_each_position(distinct)
            judged.counts["images at a position that has one already"] += len(distinct) - len(kept)
            distinct = kept
        elif problem:
            judged.reject(distinct, code, problem)
            return []
    return distinct


def judge_whole(stack: Sequence[SliceHeader], rules: Rules, judged: Judged) -> None:
    """Make a scan of a stack, or a reject."""
    for code, rule in WHOLE_STACK_RULES:
        problem = rule(stack) if rules.on(code) else None
        if problem:
            judged.reject(stack, code, problem)
            return
    scan = scan_from_slices(stack)
    reject = judge_scan(scan, rules)
    if reject is None:
        judged.counts["heads joined from several series"] += len({header.series_id for header in stack}) > 1
        judged.scans.append(scan)
    else:
        judged.reject_scan(scan, reject)


def judge_scan(scan: Scan, rules: Rules) -> Reject | None:
    """Judge what a DICOM scan and a NIfTI file have in common: what they cover, and contrast."""
    for code, rule in EXTENT_RULES:
        problem = rule(scan.extent_mm) if rules.on(code) else None
        if problem:
            return Reject(str(scan.path), code, problem, scan.scan_id)
    if rules.on(RejectCode.CONTRAST) and scan.facts.get("contrast") == 1:
        return Reject(str(scan.path), RejectCode.CONTRAST, "the header names a contrast agent", scan.scan_id)
    return None
