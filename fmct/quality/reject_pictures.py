"""Pictures of what was rejected, read from its source: the middle of it, or a sentence why there is no picture.

Never of screens, reports and documents, which may have the patient's name burned into the image. How many files are
looked at is limited, so that a page about an archive takes minutes.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fmct.console.errors import FmctError
from fmct.data.dicom import SliceHeader
from fmct.data.nifti import is_nifti
from fmct.data.path_names import PathNames, is_redacted
from fmct.data.privacy import read_key
from fmct.data.rejection import RejectCode
from fmct.data.scan import scan_id_of
from fmct.data.series import slice_headers
from fmct.data.walk import files_under
from fmct.quality.panels import Picture, sheet
from fmct.quality.source_panels import LARGEST_BYTES, NoPictureError, middle_slice, nifti_panels, slice_panel

FILES_IN_FOLDER = 2000
FILES_IN_ALL = 20_000
SHOWN_NEVER = {
    RejectCode.SECONDARY.name: "screens and reports may have a name burned in",
    RejectCode.NOT_CT.name: "documents may have a name burned in",
    RejectCode.TOO_LARGE.name: "too large to be read",
}
NO_HU = {RejectCode.LOCALIZER.name, RejectCode.IMPLAUSIBLE_HU.name}


@dataclass
class RejectPictures:
    """Draws rejects below a root, and remembers folders that it has searched.

    Attributes:
        root: the folder that rejects' paths are relative to; None where it isn't known.
        faces: whether pictures may show faces; without, none is drawn, for sources have theirs.
    """

    root: Path | None
    faces: bool = True
    _series: dict[Path, dict[str, list[SliceHeader]] | None] = field(default_factory=dict, repr=False)
    _files_left: int = FILES_IN_ALL

    def draw(self, path: str, code: str, scan_id: str) -> Picture | str:
        """Return a picture of a reject, or why there is none.

        Args:
            path: as rejects.csv has it.
            code: why it was rejected.
            scan_id: which series of a folder; "" for a single file.
        """
        try:
            return self._draw(path, code, scan_id)
        except NoPictureError as reason:
            return str(reason)
        except FmctError as error:
            return error.what.partition(": ")[2] or error.what
        except Exception as error:  # noqa: BLE001 - rejects are what breaks readers, and the page must be made
            return f"can't be read ({type(error).__name__})"

    def _draw(self, path: str, code: str, scan_id: str) -> Picture:
        if code in SHOWN_NEVER:
            raise NoPictureError(SHOWN_NEVER[code])
        if not self.faces:
            raise NoPictureError("its source may show a face, and this cache is without")
        source = self._source(path)
        alt = f"{code}: middle of {path}"
        is_hu = code not in NO_HU
        if source.is_dir():
            return Picture.of(slice_panel(middle_slice(self._slices(source, scan_id)), is_hu), alt)
        if source.stat().st_size == 0:
            raise NoPictureError("the file has no bytes")
        if source.stat().st_size > LARGEST_BYTES:
            raise NoPictureError("too large to be read")
        if is_nifti(source):
            return Picture.of(sheet([nifti_panels(source, is_hu)]), alt)
        headers = list(slice_headers([source], damaged=True))
        if not headers:
            raise NoPictureError("no DICOM image in the file")
        return Picture.of(slice_panel(middle_slice(headers), is_hu), alt)

    def _source(self, path: str) -> Path:
        if self.root is None:
            raise NoPictureError("where the sources lie isn't known (--root)")
        root = self.root.resolve()
        names = PathNames(root, read_key(make=False) if is_redacted(path) else None)
        source = names.real(path).resolve()
        if not source.is_relative_to(root):
            raise NoPictureError("the path leads out of the root")
        if not source.exists():
            raise NoPictureError("not there below the root")
        return source

    def _slices(self, folder: Path, scan_id: str) -> list[SliceHeader]:
        """Return the slices of the series that is meant; of the only one, where its id isn't known.

        Raises:
            NoPictureError: when the folder is too large, or the series isn't in it.
        """
        if folder not in self._series:
            self._series[folder] = self._search(folder)
        found = self._series[folder]
        if found is None:
            raise NoPictureError("too many files to search")
        if scan_id in found:
            return found[scan_id]
        if scan_id:
            raise NoPictureError("the series isn't in the folder")
        if len(found) != 1:
            raise NoPictureError("which series of the folder isn't said")
        return next(iter(found.values()))

    def _search(self, folder: Path) -> dict[str, list[SliceHeader]] | None:
        limit = min(FILES_IN_FOLDER, self._files_left)
        files = list(itertools.islice(files_under([folder]), limit + 1))
        if len(files) > limit:
            return None
        self._files_left -= len(files)
        series: dict[tuple[object, ...], list[SliceHeader]] = defaultdict(list)
        for header in slice_headers(files, damaged=True):
            series[header.series_id, *np.round(header.orientation_lps, 2)].append(header)
        return {scan_id_of(slices): slices for slices in series.values()}
