"""From files to scans: which DICOM series and NIfTIs under some paths are usable, and why the others aren't."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import numpy as np

from fmct.console.progress import track
from fmct.data.dicom import UNSHARED_KEY, SliceError, SliceHeader, has_prefix, read_headers
from fmct.data.duplicates import without_copies
from fmct.data.nifti import is_nifti
from fmct.data.rejection import Reject, RejectCode, ScanError
from fmct.data.scan import Scan, common_folder, scan_from_nifti, scan_from_slices
from fmct.data.series_rules import SAME_ORIENTATION, SLICE_RULES, STACK_RULES, no_geometry
from fmct.data.walk import claims_to_be_scan, files_under

FILES_AT_ONCE = 256


@dataclass
class Findings:
    """What was found under some paths; `counts` says how many files were what, those passed over among them."""

    scans: list[Scan] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def reject(self, path: Path, code: RejectCode, detail: str) -> None:
        """Add a reject."""
        self.rejects.append(Reject(str(path), code, detail))


def find_scans(paths: Sequence[Path]) -> tuple[list[Scan], list[Reject]]:
    """Find the usable scans in folders, lists of DICOM files and NIfTI files.

    Raises:
        UsageError: when a path doesn't exist.
    """
    findings = survey(paths)
    return findings.scans, findings.rejects


def survey(paths: Sequence[Path], workers: int = 0, progress: bool = False, key: bytes = UNSHARED_KEY) -> Findings:
    """Find scans and rejects, and count what was passed over.

    Args:
        paths: folders and files.
        workers: processes that read headers; 0 and 1 mean this one.
        progress: show how far the reading has come.
        key: the secret of the hashes.

    Raises:
        UsageError: when a path doesn't exist.
    """
    findings = Findings()
    headers: list[SliceHeader] = []
    damaged: list[SliceError] = []
    files = list(files_under([Path(path) for path in paths]))
    seen = read_all(files, workers, key)
    for result in track(seen, "read headers", total=len(files)) if progress else seen:
        if isinstance(result, list):
            headers.extend(result)
            findings.counts["DICOM images"] += 1
        elif isinstance(result, Scan):
            findings.scans.append(result)
            findings.counts["NIfTI files"] += 1
        elif isinstance(result, SliceError):
            damaged.append(result)
            findings.counts["DICOM images"] += 1
        elif isinstance(result, Reject):
            findings.rejects.append(result)
        else:
            findings.counts[result] += 1
    choose_series(reject_damaged(headers, damaged, findings), findings)
    findings.scans.sort(key=lambda scan: (str(scan.path), scan.scan_id))
    return findings


Seen = list[SliceHeader] | SliceError | Scan | Reject | str


def slice_headers(paths: Sequence[Path], workers: int = 0, key: bytes = UNSHARED_KEY) -> Iterator[SliceHeader]:
    """Yield the headers of all DICOM slices under some paths, whatever series they belong to and how good it is."""
    for result in read_all(list(files_under(paths)), workers, key):
        if isinstance(result, list):
            yield from result


def read_all(files: Sequence[Path], workers: int, key: bytes) -> Iterator[Seen]:
    """Look at each file, in this process or in several."""
    if workers <= 1 or len(files) <= FILES_AT_ONCE:
        yield from (look_at(file, key) for file in files)
        return
    chunks = [files[start : start + FILES_AT_ONCE] for start in range(0, len(files), FILES_AT_ONCE)]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for results in pool.map(look_at_many, chunks, repeat(key)):
            yield from results


def look_at_many(files: Iterable[Path], key: bytes) -> list[Seen]:
    """Look at several files, to send less between processes."""
    return [look_at(file, key) for file in files]


def look_at(path: Path, key: bytes) -> Seen:
    """Return what a file is: slices' headers, a damaged slice, a NIfTI scan, a reject, or a word for what is passed."""
    try:
        if path.stat().st_size == 0:
            return Reject(str(path), RejectCode.EMPTY, "0 bytes") if claims_to_be_scan(path) else "empty files"
        if is_nifti(path):
            return scan_from_nifti(path)
        prefixed = has_prefix(path)
        if prefixed is None:
            return "other files"
        return read_headers(path, prefixed, key) or "index objects"
    except SliceError as error:
        return error
    except ScanError as error:
        return Reject(str(path), error.code, error.detail)
    except OSError as error:
        return Reject(str(path), RejectCode.UNREADABLE, f"can't be opened ({error.strerror})")


def reject_damaged(
    headers: Sequence[SliceHeader], damaged: Iterable[SliceError], findings: Findings
) -> list[SliceHeader]:
    """Return the slices of series that are whole; of the others add one reject for each series.

    Without a damaged slice the stack would have a gap or end early. One of which there is a sound copy does no harm.
    """
    sound = {header.sop_id for header in headers if header.sop_id}
    groups: dict[tuple[str, str], list[SliceError]] = {}
    for error in damaged:
        if error.header.sop_id in sound:
            findings.reject(error.header.path, error.code, f"{error.detail}; there is a sound copy")
        else:
            groups.setdefault((error.header.study_id, error.header.series_id), []).append(error)
    others = Counter((header.study_id, header.series_id) for header in headers)
    for series, errors in groups.items():
        detail = f"{errors[0].detail} ({len(errors)} of {len(errors) + others[series]} files)"
        findings.reject(folder_of([error.header for error in errors]), errors[0].code, detail)
    return [header for header in headers if (header.study_id, header.series_id) not in groups]


def choose_series(headers: Iterable[SliceHeader], findings: Findings) -> None:
    """Group slices into series, judge each, and add the outcome to the findings.

    A series of several orientations makes a stack for each. Files of a series that are no axial images (a scout among
    the slices) are rejected by themselves, the rest is judged without them.
    """
    by_series: dict[tuple[str, str], list[SliceHeader]] = {}
    for header in headers:
        by_series.setdefault((header.study_id, header.series_id), []).append(header)
    for series in by_series.values():
        usable = reject_slices(series, findings)
        problem = no_geometry(usable) if usable else None
        if problem:
            findings.reject(folder_of(usable), RejectCode.NO_GEOMETRY, problem)
            continue
        for stack in split_by_orientation(usable):
            judge_stack(stack, findings)


def reject_slices(series: Sequence[SliceHeader], findings: Findings) -> list[SliceHeader]:
    """Return the slices that no slice rule refuses; add one reject for each code among the others."""
    refused: dict[RejectCode, list[SliceHeader]] = {}
    details: dict[RejectCode, str] = {}
    usable = []
    for header in series:
        for code, rule in SLICE_RULES:
            problem = rule(header)
            if problem:
                refused.setdefault(code, []).append(header)
                details.setdefault(code, problem)
                break
        else:
            usable.append(header)
    for code, slices in refused.items():
        rest = "" if len(slices) == len(series) else "; the others were judged without them"
        findings.reject(folder_of(slices), code, f"{details[code]} ({len(slices)} of {len(series)} files{rest})")
    return usable


def split_by_orientation(series: Sequence[SliceHeader]) -> list[list[SliceHeader]]:
    """Return the slices grouped by orientation."""
    groups: list[list[SliceHeader]] = []
    for header in series:
        for group in groups:
            if np.abs(np.subtract(group[0].orientation_lps, header.orientation_lps)).max() < SAME_ORIENTATION:
                group.append(header)
                break
        else:
            groups.append([header])
    return groups


def judge_stack(stack: Sequence[SliceHeader], findings: Findings) -> None:
    """Take out copies, and make a scan of slices of one orientation or a reject."""
    distinct = without_copies(sorted(stack, key=lambda header: str(header.path)))
    findings.counts["identical copies of slices"] += len(stack) - len(distinct)
    for code, rule in STACK_RULES:
        problem = rule(distinct)
        if problem:
            findings.reject(folder_of(stack), code, problem)
            return
    findings.scans.append(scan_from_slices(distinct))


def folder_of(slices: Sequence[SliceHeader]) -> Path:
    """Return the folder that holds the slices."""
    return common_folder([header.path for header in slices])
