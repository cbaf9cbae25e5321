"""Reading an archive's headers into the store: only files that are new or changed, in one process or in several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fmct.console.progress import track
from fmct.data.dicom import has_prefix, read_headers
from fmct.data.header_store import HeaderStore, Seen, Stamp
from fmct.data.nifti import is_nifti
from fmct.data.path_names import PathNames
from fmct.data.processes import run_jobs
from fmct.data.rejection import Reject, RejectCode, ScanError
from fmct.data.scan import scan_from_nifti
from fmct.data.walk import claims_to_be_scan, folders_under

FILES_AT_ONCE = 256


def read_archive(roots: Sequence[Path], store: HeaderStore, key: bytes, workers: int) -> tuple[list[Reject], int]:
    """Bring a store up to date with what is on disk.

    Args:
        roots: folders and files.
        store: what was read before.
        key: the secret of the hashes.
        workers: processes that read; 0 and 1 mean this one.

    Returns:
        Folders that can't be listed, as rejects, and how many files are known from before.

    Raises:
        UsageError: when a root doesn't exist.
    """
    closed: list[OSError] = []
    unchanged = 0
    for folder, names in track(folders_under(roots, closed), "look for files, folder by folder"):
        known = store.visited(folder, names)
        for name in names:
            stamp = stamp_of(folder / name)
            if known.get(name) == stamp:
                unchanged += 1
            else:
                store.note_changed(folder / name, stamp)
    store.forget_unvisited()
    store.save()
    count, changed = store.changed()
    if count:
        jobs = (HeaderJob(files, key) for files in in_batches(changed))
        for seen in track(entered(jobs, store, workers), "read headers", total=count):
            store.enter(*seen)
        store.save()
    return [unlisted(error, store.names) for error in closed], unchanged


def unlisted(error: OSError, names: PathNames) -> Reject:
    """Return the reject of a folder that can't be listed."""
    detail = f"the folder can't be listed ({error.strerror})"
    return Reject(names.written(error.filename), RejectCode.UNREADABLE, detail)


def entered(jobs: Iterable[HeaderJob], store: HeaderStore, workers: int) -> Iterator[tuple[Path, Stamp, Seen]]:
    """Yield what each file is, saving after every batch."""
    for part in run_jobs(jobs, workers):
        yield from part
        store.save()


def in_batches(files: Iterator[tuple[Path, Stamp]]) -> Iterator[list[tuple[Path, Stamp]]]:
    """Divide files into batches."""
    while batch := list(islice(files, FILES_AT_ONCE)):
        yield batch


def stamp_of(path: Path) -> Stamp:
    """Return size and time of the last change; (-1, 0) for what has gone meanwhile."""
    try:
        status = path.stat()
    except OSError:
        return -1, 0
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class HeaderJob:
    """Files whose headers one process reads."""

    files: Sequence[tuple[Path, Stamp]]
    key: bytes

    def run(self) -> list[tuple[Path, Stamp, Seen]]:
        """Read them."""
        return [(path, stamp, look_at(path, self.key)) for path, stamp in self.files]

    def singly(self) -> list[HeaderJob]:
        """Return a job for each file."""
        return [HeaderJob([file], self.key) for file in self.files]

    def failed(self, error: BaseException) -> list[tuple[Path, Stamp, Seen]]:
        """Return the outcome of a file that killed its process."""
        detail = f"lost with its process ({type(error).__name__})"
        return [(path, stamp, Reject(str(path), RejectCode.FAILED, detail)) for path, stamp in self.files]


def look_at(path: Path, key: bytes) -> Seen:
    """Return what a file is: its slices' headers, a NIfTI scan, a reject, or a word for what is passed over."""
    try:
        if path.stat().st_size == 0:
            return Reject(str(path), RejectCode.EMPTY, "0 bytes") if claims_to_be_scan(path) else "empty files"
        if is_nifti(path):
            return scan_from_nifti(path)
        prefixed = has_prefix(path)
        if prefixed is None:
            return "other files"
        return read_headers(path, prefixed, key) or "index objects"
    except ScanError as error:
        return Reject(str(path), error.code, error.detail)
    except OSError as error:
        return Reject(str(path), RejectCode.UNREADABLE, f"can't be opened ({error.strerror})")
