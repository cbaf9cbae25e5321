"""The cache: one compressed volume per scan, an index of them, and the settings that made them.

`DIR/<preset>-<hash>/{settings.json, index.parquet, rejects.csv, volumes/ab/<scan_id>.b2nd}`. Every file appears whole
or not at all. Other settings have another hash and so another folder: what is in a folder was made in one way.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmct.console.errors import UsageError, require_file
from fmct.console.files import atomic_path, write_text_atomically
from fmct.data.presets import IsotropicSettings, parse_settings
from fmct.data.rejection import REJECTS_COLUMNS, RejectCode
from fmct.data.volume_file import Volume as Volume
from fmct.data.volume_file import checksum, damaged, read_volume, write_volume

INDEX_COLUMNS = ["checksum", "shape_zyx", "spacing_mm", "affine", "cropped_mm"]
SAFE_SCAN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=-]{0,199}")


class VolumeCache:
    """The volumes made with one set of settings.

    Attributes:
        folder: the folder of the settings, `DIR/<preset>-<hash>`.
        settings: how the volumes were made.
    """

    def __init__(
        self,
        folder: Path,
        settings: IsotropicSettings,
        index: pd.DataFrame | None = None,
        rejects: pd.DataFrame | None = None,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self._index = index if index is not None else empty_index()
        rows = rejects.to_dict("records") if rejects is not None else []
        self._rejects: dict[str, dict[Any, Any]] = {str(row["scan_id"]): row for row in rows}
        self._new_rows: dict[str, dict[str, Any]] = {}

    @classmethod
    def create(cls, root: str | Path, settings: IsotropicSettings) -> VolumeCache:
        """Open the folder of some settings under a cache's root, making it where it is missing."""
        folder = Path(root) / settings.folder_name()
        if not (folder / "settings.json").exists():
            write_text_atomically(folder / "settings.json", json.dumps(settings.described(), indent=2) + "\n")
        return cls.open(folder)

    @classmethod
    def open(cls, path: str | Path) -> VolumeCache:
        """Open a cache.

        Args:
            path: the folder of some settings, or the cache's root when it holds only one such folder.

        Raises:
            UsageError: when there is no cache, several to choose from, or one that can't be read.
        """
        folder = preset_folder(Path(path))
        source = folder / "settings.json"
        try:
            settings = parse_settings(json.loads(source.read_text(encoding="utf-8"))["settings"], str(source))
            index = read_index(folder / "index.parquet")
            rejects = read_rejects(folder / "rejects.csv")
        except (OSError, ValueError, KeyError, TypeError) as error:
            fix = "remove the broken file; `fmct preprocess` makes it anew"
            raise UsageError(f"the cache can't be read ({error})", folder, fix) from error
        return cls(folder, settings, index, rejects)

    @property
    def index(self) -> pd.DataFrame:
        """One row per volume, by scan_id: checksum, shape_zyx, spacing_mm, affine (16 values), cropped_mm, source_*."""
        if self._new_rows:
            added = pd.DataFrame.from_dict(self._new_rows, orient="index").rename_axis("scan_id")
            old = self._index.drop(index=added.index, errors="ignore")
            self._index = pd.concat([old, added]) if len(old) else added
            self._new_rows = {}
        return self._index

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, scan_id: str) -> bool:
        return scan_id in self._new_rows or scan_id in self._index.index

    def has_volume(self, scan_id: str) -> bool:
        """Tell whether a scan is in the index and its file there.

        Raises:
            UsageError: when the scan_id is no safe file name.
        """
        path = self.volume_path(scan_id)
        return scan_id in self and path.exists()

    def present_ids(self) -> set[str]:
        """Return the scans that are in the index and whose files are there, by listing folders, not file by file."""
        names = {
            entry.name.removesuffix(".b2nd")
            for folder in (self.folder / "volumes").glob("*/")
            for entry in os.scandir(folder)
        }
        return names.intersection(self.index.index)

    def volume_path(self, scan_id: str) -> Path:
        """Return where a scan's volume is.

        Raises:
            UsageError: when the scan_id is no safe file name.
        """
        if not SAFE_SCAN_ID.fullmatch(scan_id):
            raise UsageError(
                f"the scan_id {scan_id!r} can't be a file name",
                self.folder,
                "use letters, digits and . _ + = - only, not beginning with a dot, at most 200 characters",
            )
        return self.folder / "volumes" / hashlib.sha256(scan_id.encode()).hexdigest()[:2] / f"{scan_id}.b2nd"

    def read(self, scan_id: str) -> NDArray[np.int16]:
        """Return a volume, (Z, Y, X) int16 HU.

        Raises:
            UsageError: when the cache has no such scan.
            FmctError: naming the file, when it is missing or damaged.
        """
        return read_volume(self.volume_path(self._known(scan_id)))

    def verify(self, scan_id: str) -> None:
        """Check a volume against its checksum.

        Raises:
            FmctError: naming the file, when it isn't what was written.
        """
        if checksum(self.read(scan_id)) != self.index.loc[scan_id, "checksum"]:
            raise damaged(self.volume_path(scan_id), "isn't what was written (the checksum differs)")

    def affine(self, scan_id: str) -> NDArray[np.float64]:
        """Return the (4, 4) affine from indices (x, y, z) to RAS millimeters.

        Raises:
            UsageError: when the cache has no such scan.
        """
        return np.asarray(self.index.loc[self._known(scan_id), "affine"], dtype=np.float64).reshape(4, 4)

    def _known(self, scan_id: str) -> str:
        if scan_id not in self:
            raise UsageError(f"there is no scan {scan_id} in the cache", self.folder, "add it with `fmct preprocess`")
        return scan_id

    def store(self, scan_id: str, volume: Volume, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Write a volume's file and return its row of the index, for `record` (maybe in another process).

        Args:
            scan_id: a name that can be a file's.
            volume: what to write.
            facts: further columns of the index.
        """
        voxels = np.ascontiguousarray(volume.voxels)
        write_volume(voxels, self.volume_path(scan_id))
        return {
            "checksum": checksum(voxels),
            "shape_zyx": list(voxels.shape[-3:]),
            "spacing_mm": volume.spacing_mm,
            "affine": volume.affine.ravel().tolist(),
            "cropped_mm": float(volume.cropped_mm),
            **(facts or {}),
        }

    def record(self, scan_id: str, row: dict[str, Any]) -> None:
        """Enter a stored volume into the index; on disk with the next `save`."""
        self._new_rows[scan_id] = row
        self._rejects.pop(scan_id, None)

    def write(self, scan_id: str, volume: Volume, facts: Mapping[str, Any] | None = None) -> None:
        """Store a volume and enter it into the index; `save` writes the index."""
        self.record(scan_id, self.store(scan_id, volume, facts))

    def reject(self, scan_id: str, path: str, code: RejectCode, detail: str) -> None:
        """Enter a scan that could not be preprocessed; on disk with the next `save`."""
        self._rejects[scan_id] = {"path": path, "code": code.name, "detail": detail, "scan_id": scan_id}

    def rejected_ids(self, without: RejectCode | None = None) -> set[str]:
        """Return the scans that preprocessing has rejected, without those of one code."""
        return {scan_id for scan_id, row in self._rejects.items() if without is None or row["code"] != without.name}

    def save(self) -> None:
        """Write index.parquet and rejects.csv."""
        with atomic_path(self.folder / "index.parquet") as temporary:
            self.index.sort_index().to_parquet(temporary)
        columns = REJECTS_COLUMNS
        rows = sorted(self._rejects.values(), key=lambda row: (str(row["path"]), str(row["scan_id"])))
        with atomic_path(self.folder / "rejects.csv") as temporary:
            pd.DataFrame(rows, columns=columns).to_csv(temporary, index=False)

    def export_nifti(self, scan_id: str, path: str | Path) -> None:
        """Write a volume as NIfTI (.nii or .nii.gz) with its true affine."""
        image = nib.Nifti1Image(self.read(scan_id).transpose(2, 1, 0), self.affine(scan_id))
        image.set_sform(image.affine, code="scanner")
        image.set_qform(image.affine, code="scanner")
        image.header.set_xyzt_units("mm")
        content = image.to_bytes()
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(gzip.compress(content) if Path(path).suffix == ".gz" else content)


def preset_folder(path: Path) -> Path:
    """Return the folder of some settings: `path` itself, or the only one in it.

    Raises:
        UsageError: when there is none, or several to choose from.
    """
    require_file(path, "the cache", "make one with `fmct preprocess MANIFEST --cache DIR`")
    if (path / "settings.json").exists():
        return path
    folders = sorted(file.parent for file in path.glob("*/settings.json"))
    if len(folders) == 1:
        return folders[0]
    if folders:
        listed = ", ".join(folder.name for folder in folders)
        raise UsageError(f"the cache was made with several settings: {listed}", path, f"name one, such as {folders[0]}")
    raise UsageError("the folder is no cache", path, "make one with `fmct preprocess MANIFEST --cache DIR`")


def read_index(path: Path) -> pd.DataFrame:
    """Return the index, empty where nothing was preprocessed yet."""
    return pd.read_parquet(path) if path.exists() else empty_index()


def empty_index() -> pd.DataFrame:
    """Return an index without rows."""
    return pd.DataFrame(columns=INDEX_COLUMNS, index=pd.Index([], name="scan_id", dtype="str"))


def read_rejects(path: Path) -> pd.DataFrame:
    """Return the rejects (path, code, detail, scan_id), empty where there are none."""
    if not path.exists():
        return pd.DataFrame(columns=REJECTS_COLUMNS)
    return pd.read_csv(path, dtype=str, keep_default_na=False)
