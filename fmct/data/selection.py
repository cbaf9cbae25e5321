"""What becomes of a study: its scans judged, one of them chosen and looked at, the rest rejected with a reason."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fmct.data.choosing import not_chosen, ranked
from fmct.data.criteria import Criteria
from fmct.data.dicom import SliceHeader
from fmct.data.look import PIXEL_RULES, look_at_stack
from fmct.data.path_names import PathNames
from fmct.data.privacy import keyed_id
from fmct.data.rejection import Reject, RejectCode, ScanError
from fmct.data.rules import ALL_RULES, Rules
from fmct.data.scan import Scan, common_folder
from fmct.data.study import REJECTED_IMAGES, Judged, judge_scan, judge_study

VERSION = 1
"""Raised whenever the same files and rules would be judged differently."""
UNSETTLED = ""
"""The fingerprint of what should be tried again in the next run."""


@dataclass(frozen=True)
class Policy:
    """How scans are judged and chosen.

    Attributes:
        rules: which rules are on.
        criteria: an allow-list of DICOM series; None allows all.
        all_series: keep every usable series of a study, not only the best.
    """

    rules: Rules = ALL_RULES
    criteria: Criteria | None = None
    all_series: bool = False

    @property
    def fingerprint(self) -> str:
        """Text that differs where the outcome could."""
        added = sorted(code.name for code in self.rules.added)
        listed = self.criteria.fingerprint if self.criteria else None
        return json.dumps([VERSION, self.rules.skipped_text, added, listed, self.all_series])


@dataclass(frozen=True)
class Outcome:
    """What became of a study.

    Attributes:
        study: its name in the store.
        fingerprint: of its files and the policy.
        scans: rows of the manifest, without the site.
        rejects: the rest, with paths as they are written.
        counts: what was left out without being lost.
    """

    study: str
    fingerprint: str
    scans: list[dict[str, Any]]
    rejects: list[Reject]
    counts: Counter[str]

    def to_json(self) -> str:
        """Return it as text for the store."""
        rejects = [[reject.path, reject.code.name, reject.detail, reject.scan_id] for reject in self.rejects]
        return json.dumps([self.scans, rejects, self.counts])


def outcome_from_json(content: str) -> tuple[list[dict[str, Any]], Iterator[Reject], Counter[str]]:
    """Return scans, rejects and counts of `Outcome.to_json`."""
    scans, rejects, counts = json.loads(content)
    return (
        scans,
        (Reject(path, RejectCode[code], detail, scan) for path, code, detail, scan in rejects),
        Counter(counts),
    )


@dataclass(frozen=True)
class StudyFiles:
    """A study's slices, or one NIfTI file, which is a study of its own."""

    study: str
    fingerprint: str
    headers: Sequence[SliceHeader] = ()
    nifti: Scan | None = None


@dataclass(frozen=True)
class StudyJob:
    """Studies that one process judges."""

    studies: Sequence[StudyFiles]
    policy: Policy
    names: PathNames
    key: bytes

    def run(self) -> list[Outcome]:
        """Judge them."""
        return [self._safely(study) for study in self.studies]

    def singly(self) -> list[StudyJob]:
        """Return a job for each study."""
        return [StudyJob([study], self.policy, self.names, self.key) for study in self.studies]

    def failed(self, error: BaseException) -> list[Outcome]:
        """Return the outcome of a study that killed its process."""
        return [self._lost(study, f"lost with its process ({type(error).__name__})") for study in self.studies]

    def _safely(self, study: StudyFiles) -> Outcome:
        try:
            return self._one(study)
        except Exception as error:  # noqa: BLE001 - one odd study must not stop a hundred thousand others
            return self._lost(study, f"judging broke off ({type(error).__name__})")

    def _lost(self, study: StudyFiles, detail: str) -> Outcome:
        path = study.nifti.path if study.nifti else common_folder([header.path for header in study.headers])
        reject = Reject(self.names.written(path), RejectCode.FAILED, detail)
        return Outcome(study.study, UNSETTLED, [], [reject], Counter({REJECTED_IMAGES: len(study.headers)}))

    def _one(self, study: StudyFiles) -> Outcome:
        if study.nifti is not None:
            judged = Judged()
            reject = judge_scan(study.nifti, self.policy.rules)
            judged.scans = [study.nifti] if reject is None else []
            judged.rejects = [reject] if reject is not None else []
            patient = keyed_id("patient", study.nifti.patient, self.key)
        else:
            judged = judge_study(study.headers, self.policy.rules)
            patient = patient_of(study.headers)
        chosen = choose(judged, self.policy)
        patient = patient or min((scan.scan_id for scan in chosen), default="")
        rows = [self._row(scan, patient) for scan in chosen]
        rejects = [
            Reject(self.names.written(reject.path), reject.code, reject.detail, reject.scan_id)
            for reject in judged.rejects
        ]
        return Outcome(study.study, study.fingerprint if judged.settled else UNSETTLED, rows, rejects, +judged.counts)

    def _row(self, scan: Scan, patient: str) -> dict[str, Any]:
        return {
            "scan_id": scan.scan_id,
            "path": self.names.written(scan.path),
            "format": scan.format,
            "patient_id": patient,
            "study_id": scan.study,
            "skipped_rules": self.policy.rules.skipped_text,
            **scan.facts,
        }


def patient_of(headers: Sequence[SliceHeader]) -> str:
    """Return the patient of a study: the one that most slices name, else the study itself stands for them.

    So all reconstructions of a study share one patient, and with it one split. "" where not even the study has a UID.
    """
    named = Counter(header.patient_id for header in headers if header.patient_id)
    return max(sorted(named), key=lambda patient: named[patient]) if named else headers[0].study_id


def choose(judged: Judged, policy: Policy) -> list[Scan]:
    """Return the scans to keep, best first, and add the others to the rejects.

    The best one that holds at a look at its pixels is kept, so a broken reconstruction doesn't cost a study.
    """
    allowed = []
    for scan in judged.scans:
        if policy.criteria is None or not scan.slices or policy.criteria.allow(scan.slices[0]):
            allowed.append(scan)
        else:
            kernel = scan.facts.get("kernel") or "none"
            detail = f"the criteria don't list its study description with {scan.facts['kvp']:g} kV and kernel {kernel}"
            judged.reject_scan(scan, Reject(str(scan.path), RejectCode.NOT_CHOSEN, detail, scan.scan_id))
    chosen: list[Scan] = []
    for scan in ranked(allowed):
        if chosen and not policy.all_series:
            judged.reject_scan(scan, not_chosen(scan, chosen[0]))
            continue
        reject = looked_at(scan, policy.rules, judged)
        if reject is None:
            chosen.append(scan)
        else:
            judged.reject_scan(scan, reject)
    return chosen


def looked_at(scan: Scan, rules: Rules, judged: Judged) -> Reject | None:
    """Look at a scan's pixels and judge them; they aren't read when no such rule is on."""
    active = [(code, rule) for code, rule in PIXEL_RULES if rules.on(code)]
    if not active:
        return None
    try:
        stack = look_at_stack(scan)
    except ScanError as error:
        cause = error.__cause__
        judged.settled &= not (isinstance(cause, OSError) and cause.errno)  # the disk may be at fault, not the file
        return Reject(str(error.where), error.code, error.detail, scan.scan_id)
    for code, rule in active:
        problem = rule(stack)
        if problem:
            return Reject(str(scan.path), code, problem, scan.scan_id)
    return None


def fingerprint_of(rows: Sequence[tuple[Any, ...]], policy: Policy) -> str:
    """Return a text that differs when a study's files, as the store has them, or the policy do."""
    digest = hashlib.sha256(policy.fingerprint.encode())
    for row in rows:
        digest.update(repr(row).encode())
    return digest.hexdigest()
