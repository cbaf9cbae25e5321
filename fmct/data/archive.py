"""Reading an archive's headers into the store: only files that are new or changed, in one process or in several."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fmct.console.progress import track
from fmct.data.dicom import SliceError, SliceHeader, has_prefix, read_headers
from fmct.data.header_store import HeaderStore, Seen, Stamp
from fmct.data.nifti import is_nifti
from fmct.data.path_names import PathNames
from fmct.data.processes import run_jobs
from fmct.data.rejection import Reject, RejectCode, ScanError
from fmct.data.scan import scan_from_nifti
from fmct.data.walk import PassedOver, claims_to_be_scan, folders_under

FILES_AT_ONCE = 256
UNSETTLED: Stamp = (-1, -1)
"""The stamp of what should be tried again in the next run."""
CANNOT_OPEN = "can't be opened"
CT_IMAGE_UID = "1.2.840.10008.5.1.4.1.1.2"
"""The beginning of the SOP classes of CT images, enhanced ones too."""


@dataclass(frozen=True)
class Survey:
    """What was on disk, beside what went into the store.

    Attributes:
        closed: folders that can't be listed, as rejects.
        unchanged: how many files are known from before.
        passed: how many of what weren't looked at.
    """

    closed: list[Reject]
    unchanged: int
    passed: Counter[str]


def read_archive(
    roots: Sequence[Path], store: HeaderStore, key: bytes, workers: int, own: Collection[Path] = ()
) -> Survey:
    """Bring a store up to date with what is on disk.

    Args:
        roots: folders and files.
        store: what was read before.
        key: the secret of the hashes.
        workers: processes that read; 0 and 1 mean this one.
        own: files that the program itself writes meanwhile; they don't count.

    Raises:
        UsageError: when a root doesn't exist.
    """
    passed = PassedOver()
    unchanged = 0
    for folder, names in track(folders_under(roots, passed, own), "look for files, folder by folder"):
        known = store.visited(folder, names)
        for name in names:
            stamp = stamp_of(f"{folder}/{name}")
            if known.get(name) == stamp != UNSETTLED:
                unchanged += 1
            else:
                store.note_changed(folder, name, stamp)
    store.forget_unvisited()
    store.save()
    count, changed = store.changed()
    if count:
        jobs = (HeaderJob(files, key) for files in in_batches(changed))
        for seen in track(entered(jobs, store, workers), "read headers", total=count):
            store.enter(*seen)
        store.save()
    return Survey([unlisted(error, store.names) for error in passed.closed], unchanged, passed.counts)


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


def stamp_of(path: Path | str) -> Stamp:
    """Return size and time of the last change; `UNSETTLED` for what can't be asked."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a million times, and Path is slow
    except OSError:
        return UNSETTLED
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class HeaderJob:
    """Files whose headers one process reads; with `pixels`, they keep how to decode what they are headers of."""

    files: Sequence[tuple[Path, Stamp]]
    key: bytes
    pixels: bool = False

    def run(self) -> list[tuple[Path, Stamp, Seen]]:
        """Read them."""
        seen = ((path, stamp, look_at(path, self.key, self.pixels)) for path, stamp in self.files)
        return [(path, UNSETTLED if is_passing(what) else stamp, what) for path, stamp, what in seen]

    def singly(self) -> list[HeaderJob]:
        """Return a job for each file."""
        return [HeaderJob([file], self.key, self.pixels) for file in self.files]

    def failed(self, error: BaseException) -> list[tuple[Path, Stamp, Seen]]:
        """Return the outcome of a file that killed its process."""
        detail = f"lost with its process ({type(error).__name__})"
        return [(path, UNSETTLED, Reject(str(path), RejectCode.FAILED, detail)) for path, _ in self.files]


def look_at(path: Path, key: bytes, pixels: bool = False) -> Seen:
    """Return what a file is: its slices' headers, a NIfTI scan, a reject, or a word for what is passed over."""
    try:
        if path.stat().st_size == 0:
            return Reject(str(path), RejectCode.EMPTY, "0 bytes") if claims_to_be_scan(path) else "empty files"
        if is_nifti(path):
            return scan_from_nifti(path)
        prefixed = has_prefix(path)
        if prefixed is None:
            return not_dicom(path)
        headers = read_headers(path, prefixed, key, pixels)
        if any(breaks_off(header) for header in headers):
            return Reject(str(path), RejectCode.UNREADABLE, "the header breaks off before it says what the image is")
        return headers or ("index objects" if prefixed else not_dicom(path))
    except SliceError as error:
        return [error.damaged]
    except ScanError as error:
        return Reject(str(path), error.code, error.detail)
    except OSError as error:
        return Reject(str(path), RejectCode.UNREADABLE, f"{CANNOT_OPEN} ({error.strerror})")
    except Exception as error:  # noqa: BLE001 - a damaged header can break a reader in any way
        return Reject(str(path), RejectCode.UNREADABLE, f"header can't be parsed ({type(error).__name__})")


def breaks_off(header: SliceHeader) -> bool:
    """Tell headers that were cut short: they say nothing at all, or CT image and no size."""
    is_ct = header.sop_class.startswith(CT_IMAGE_UID) or (header.modality == "CT" and not header.sop_class)
    nothing = not (header.modality or header.sop_class or header.series_id or header.rows)
    return nothing or (is_ct and not (header.rows and header.columns))


def not_dicom(path: Path) -> Seen:
    """Return what a file is that isn't DICOM: damaged if its name says that it should be."""
    if claims_to_be_scan(path):
        return Reject(str(path), RejectCode.UNREADABLE, "named as a scan, and not the beginning of one")
    return "other files"


def is_passing(seen: Seen) -> bool:
    """Tell whether a file should be tried again in the next run although it is the same: the disk may be at fault."""
    return isinstance(seen, Reject) and (seen.code is RejectCode.FAILED or seen.detail.startswith(CANNOT_OPEN))
