"""From files to scans, all in memory: for a folder or a list of files, not for an archive (that's `fmct index`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fmct.data.archive import HeaderJob, in_batches, stamp_of
from fmct.data.clusters import Workers
from fmct.data.dicom import UNSHARED_KEY, SliceHeader
from fmct.data.header_store import Seen
from fmct.data.processes import run_jobs
from fmct.data.rejection import Reject
from fmct.data.rules import ALL_RULES, Rules
from fmct.data.scan import Scan
from fmct.data.study import judge_scan, judge_study
from fmct.data.walk import files_under


def find_scans(
    paths: Sequence[Path], rules: Rules = ALL_RULES, workers: int = 0, root: Path | None = None
) -> tuple[list[Scan], list[Reject]]:
    """Find the usable scans in folders, lists of DICOM files and NIfTI files: all of a study, judged by their headers.

    Args:
        paths: folders and files.
        rules: which rules are on.
        workers: processes that read headers; 0 and 1 mean this one.
        root: inside of what the targets of links must be; None means the folder that the link was found under.

    Returns:
        The scans, by path, and why the rest isn't usable.

    Raises:
        UsageError: when a path doesn't exist.
    """
    return judged_scans(looked_at(paths, UNSHARED_KEY, workers, root, pixels=True), rules)


def judged_scans(files: Iterable[tuple[Path, Seen]], rules: Rules = ALL_RULES) -> tuple[list[Scan], list[Reject]]:
    """Judge files that were looked at.

    Args:
        files: and what they are.
        rules: which rules are on.

    Returns:
        As `find_scans`.
    """
    scans: list[Scan] = []
    rejects: list[Reject] = []
    studies: dict[str, list[SliceHeader]] = {}
    for _, seen in files:
        if isinstance(seen, list):
            for header in seen:
                studies.setdefault(study_of(header), []).append(header)
        elif isinstance(seen, Scan):
            reject = judge_scan(seen, rules)
            if reject is None:
                scans.append(seen)
            else:
                rejects.append(reject)
        elif isinstance(seen, Reject):
            rejects.append(seen)
    for headers in studies.values():
        judged = judge_study(headers, rules)
        scans += judged.scans
        rejects += judged.rejects
    return sorted(scans, key=lambda scan: (str(scan.path), scan.scan_id)), rejects


def study_of(header: SliceHeader) -> str:
    """Return what slices of one study share."""
    return header.study_id or header.series_id or str(header.path.parent)


def slice_headers(
    paths: Sequence[Path], workers: int = 0, key: bytes = UNSHARED_KEY, damaged: bool = False
) -> Iterator[SliceHeader]:
    """Yield the headers of all DICOM slices under some paths, whatever series they belong to and how good it is.

    Args:
        paths: folders and files.
        workers: processes that read; 0 and 1 mean this one.
        key: the secret of the hashes.
        damaged: also those of which the pixels can't be used.

    Raises:
        UsageError: when a path doesn't exist.
    """
    for _, seen in looked_at(paths, key, workers):
        if isinstance(seen, list):
            yield from (header for header in seen if damaged or not header.damage)


def looked_at(
    paths: Sequence[Path], key: bytes, workers: int | Workers, root: Path | None = None, pixels: bool = False
) -> Iterator[tuple[Path, Seen]]:
    """Yield every file under some paths and what it is; with `pixels`, headers keep how to decode their slices."""
    files = ((path, stamp_of(path)) for path in files_under([Path(path) for path in paths], root))
    for part in run_jobs((HeaderJob(batch, key, pixels) for batch in in_batches(files)), workers):
        for path, _, seen in part:
            yield path, seen
