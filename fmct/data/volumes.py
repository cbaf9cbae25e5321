"""The cache: one compressed volume per scan, an index of them, and the settings that made them.

`DIR/<preset>-<hash>/{settings.json, index.parquet, rejects.csv, volumes/ab/<scan_id>.b2nd}`. Every file appears whole
or not at all. Other settings have another hash and so another folder: what is in a folder was made in one way.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmct.console.errors import FmctError, UsageError
from fmct.console.files import write_text_atomically
from fmct.data.cache_folders import SAFE_SCAN_ID, SETTINGS_FILE, SUFFIX, preset_folder, volume_names, volume_path
from fmct.data.cache_index import AFFINE_COLUMNS, SHAPE_COLUMNS, CacheIndex, index_row
from fmct.data.nifti_writing import write_nifti
from fmct.data.presets import AnySettings, parse_settings
from fmct.data.rejection import REJECTS_COLUMNS, RejectCode
from fmct.data.volume_file import StoredVolume, Voxels, check_volume, read_volume, write_volume
from fmct.data.volume_file import Volume as Volume


class VolumeCache:
    """The volumes made with one set of settings.

    Reading a volume needs its file alone: the index is read when it is asked for. So a cache that is sent to another
    process (a loader's) is no more than its folder and settings, and what it hasn't saved stays behind.

    Attributes:
        folder: the folder of the settings, `DIR/<preset>-<hash>`.
        settings: how the volumes were made.
    """

    def __init__(self, folder: Path, settings: AnySettings) -> None:
        self.folder = folder
        self.settings = settings
        self._index: CacheIndex | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None}

    @classmethod
    def create(cls, root: str | Path, settings: AnySettings) -> VolumeCache:
        """Open the folder of some settings under a cache's root, making it where it is missing."""
        folder = Path(root) / settings.folder_name()
        if not (folder / SETTINGS_FILE).exists():
            write_text_atomically(folder / SETTINGS_FILE, json.dumps(settings.described(), indent=2) + "\n")
        return cls.open(folder)

    @classmethod
    def open(cls, path: str | Path) -> VolumeCache:
        """Open a cache and read its index.

        Args:
            path: the folder of some settings, or the cache's root when it holds only one such folder.

        Raises:
            UsageError: when there is no cache, several to choose from, or one that can't be read.
        """
        folder = preset_folder(Path(path))
        source = folder / SETTINGS_FILE
        try:
            settings = parse_settings(json.loads(source.read_text(encoding="utf-8"))["settings"], str(source))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise unreadable(folder, f"settings.json: {error}") from error
        cache = cls(folder, settings)
        cache._loaded()
        return cache

    def _loaded(self) -> CacheIndex:
        if self._index is None:
            try:
                self._index = CacheIndex(self.folder)
            except (OSError, ValueError, KeyError) as error:
                raise unreadable(self.folder, str(error)) from error
        return self._index

    @property
    def index(self) -> pd.DataFrame:
        """One row per volume, by scan_id: the columns of `cache_index.index_row`."""
        return self._loaded().rows

    @property
    def rejects(self) -> pd.DataFrame:
        """What preprocessing has rejected: path, code, detail, scan_id."""
        return pd.DataFrame(list(self._loaded().rejects.values()), columns=REJECTS_COLUMNS)

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, scan_id: str) -> bool:
        return scan_id in self._loaded()

    def has_volumes(self, scan_ids: pd.Series[str]) -> pd.Series[bool]:
        """Tell of many scans whether each is in the index and its file there, by listing folders: quick on a network.

        Raises:
            UsageError: when a scan_id is no safe file name.
        """
        for scan_id in scan_ids[~scan_ids.str.fullmatch(SAFE_SCAN_ID).astype(bool)]:
            self.volume_path(scan_id)
        names = volume_names(self.folder)
        on_disk = [f"{scan_id}{SUFFIX}" in names for scan_id in scan_ids]  # isin takes seconds, on text
        listed = self.index.index.get_indexer(pd.Index(scan_ids)) >= 0
        return pd.Series(np.asarray(on_disk, bool) & listed, scan_ids.index)

    def volume_path(self, scan_id: str) -> Path:
        """Return where a scan's volume is.

        Raises:
            UsageError: when the scan_id is no safe file name.
        """
        return volume_path(self.folder, scan_id)

    def read(self, scan_id: str, out: Voxels | None = None) -> Voxels:
        """Return a volume, its bytes checked; see `read_volume`.

        Args:
            scan_id: which.
            out: where to put it, such as a place in a batch.

        Raises:
            UsageError: when the cache has no such scan.
            FmctError: naming the file, when it is missing or damaged.
        """
        try:
            return read_volume(self.volume_path(scan_id), out)
        except FmctError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                self._known(scan_id)
            raise

    def verify(self, scan_id: str) -> None:
        """Check a volume against all that is known of it, the checksum in the index too.

        Raises:
            UsageError: when the cache has no such scan.
            FmctError: naming the file, when it isn't what was written.
        """
        self.check(scan_id, str(self.index["checksum"].loc[self._known(scan_id)]))

    def check(self, scan_id: str, expected: str | None = None) -> StoredVolume:
        """Check a volume without the index, against a checksum where one is known; see `check_volume`.

        Raises:
            FmctError: naming the file, when it isn't what was written.
        """
        # settings that got a new field since have another hash, and a folder can be renamed: either name is right
        names = {self.settings.folder_name(), self.folder.name}
        return check_volume(self.volume_path(scan_id), names, expected)

    def affine(self, scan_id: str) -> NDArray[np.float64]:
        """Return the (4, 4) affine from indices (x, y, z) to RAS millimeters.

        Raises:
            UsageError: when the cache has no such scan.
        """
        row = self.index.index.get_loc(self._known(scan_id))
        values = [self.index[name].to_numpy()[row] for name in AFFINE_COLUMNS]
        return np.reshape(np.asarray([*values, 0, 0, 0, 1], dtype=np.float64), (4, 4))

    def shapes_zyx(self, scan_ids: Sequence[str]) -> set[tuple[int, int, int]]:
        """Return the shapes that some volumes of the cache have."""
        shapes = self.index.loc[list(scan_ids), SHAPE_COLUMNS].drop_duplicates()
        return {(int(z), int(y), int(x)) for z, y, x in shapes.itertuples(index=False)}

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

        Raises:
            OSError: naming the file, when the disk is full or can't be written.
        """
        return index_row(write_volume(volume, self.volume_path(scan_id), self.settings.folder_name(), facts))

    def adopted(self, scan_id: str) -> dict[str, Any] | None:
        """Return the row of a volume that is on disk but not in the index, None where there is no good one.

        A run that is killed leaves such volumes: they were written, and the index wasn't.
        """
        if not self.volume_path(scan_id).exists():
            return None
        try:
            return index_row(self.check(scan_id))
        except FmctError:  # damaged, so it is made anew, which puts a good file in its place
            return None

    def record(self, scan_id: str, row: dict[str, Any]) -> None:
        """Enter a stored volume into the index; on disk with the next `save`."""
        self._loaded().record(scan_id, row)

    def write(self, scan_id: str, volume: Volume, facts: Mapping[str, Any] | None = None) -> None:
        """Store a volume and enter it into the index; `save` writes the index."""
        self.record(scan_id, self.store(scan_id, volume, facts))

    def reject(self, scan_id: str, path: str, code: RejectCode, detail: str) -> None:
        """Enter a scan that could not be preprocessed; on disk with the next `save`."""
        row = {"path": path, "code": code.name, "detail": detail, "scan_id": scan_id}
        self._loaded().reject(scan_id, row)

    def rejected_ids(self, without: RejectCode | None = None) -> set[str]:
        """Return the scans that preprocessing has rejected, without those of one code."""
        rejects = self._loaded().rejects.items()
        return {scan_id for scan_id, row in rejects if without is None or row["code"] != without.name}

    def save_additions(self) -> None:
        """Write what this process has added, beside the index: for every minute of a long run."""
        self._loaded().save_additions()

    def save(self) -> None:
        """Write index.parquet and rejects.csv, with what other processes have added.

        Raises:
            LockedError: when another process holds the index for too long; what was added stays beside it.
        """
        self._loaded().merge(lambda scan_id: self.volume_path(scan_id).exists())

    def forget(self, scan_ids: Collection[str]) -> None:
        """Take scans out of the index and the rejects, and save both; their files stay.

        Raises:
            LockedError: when another process holds the index for too long.
        """
        self._loaded().merge(lambda scan_id: self.volume_path(scan_id).exists(), without=set(scan_ids))

    def export_nifti(self, scan_id: str, path: str | Path) -> None:
        """Write a volume as NIfTI (.nii or .nii.gz) with its true affine; see `write_nifti`."""
        write_nifti(self.read(scan_id), self.affine(scan_id), Path(path))


def unreadable(folder: Path, problem: str) -> UsageError:
    """Return the error about a cache that can't be opened."""
    return UsageError(
        f"the cache can't be read ({problem})", folder, "remove the broken file; `fmct preprocess` makes it anew"
    )
