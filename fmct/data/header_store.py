"""What `fmct index` has read, in one SQLite file: so that memory stays flat and a second run reads only what changed.

Paths in it are as they are written everywhere (hashed with --redact-paths), identifiers are hashes. It can be deleted
at any time; then everything is read again.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from fmct.data.dicom import SliceHeader
from fmct.data.header_codec import common_fields, common_json, packed, scan_from_json, scan_json, unpacked
from fmct.data.nifti import stem
from fmct.data.path_names import PathNames, escaped, unescaped
from fmct.data.rejection import Reject, RejectCode
from fmct.data.scan import Scan
from fmct.data.store_tables import LISTS

COMMONS_REMEMBERED = 10000
SCANS = ("DICOM images", "NIfTI files", "files that can't be used")
"""What `HeaderStore.counts` calls files that are, or should be, of interest."""

Seen = list[SliceHeader] | Scan | Reject | str
"""What a file turned out to be: slices, a NIfTI scan, a reject, or a word for what is passed over."""
Stamp = tuple[int, int]
"""Size and time of the last change, by which a file that was read before is known again."""


@dataclass(frozen=True)
class StudyRows:
    """The slices of a study as stored: cheap to compare, made into headers only when something changed."""

    study: str
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class NiftiRow:
    """A NIfTI file as stored: its path as written, what is known of it as text, and by what it is known again."""

    path: str
    content: str
    stamp: Stamp


class HeaderStore:
    """The store of one index.

    Args:
        database: with the tables of `TABLES`, see `open_store`.
        names: how paths are written.
    """

    def __init__(self, database: sqlite3.Connection, names: PathNames) -> None:
        self.database = database
        self.names = names
        self.database.execute("pragma cache_size = -16384")
        self.database.executescript(LISTS)
        last = self.database.execute("select max(visit) from folders").fetchone()[0]
        self.visit = (last or 0) + 1
        self._commons: dict[str, int] = {}

    def visited(self, folder: Path, names: Iterable[str]) -> dict[str, Stamp]:
        """Note that a folder was visited, forget what has gone from it, and return what is known of its files."""
        written = self.names.written(folder)
        self.database.execute(
            "insert into folders (path, visit) values (?, ?) on conflict (path) do update set visit = excluded.visit",
            (written, self.visit),
        )
        number = self._folder(written)
        rows = self.database.execute("select name, size, changed from files where folder = ?", (number,))
        known = {name: (size, changed) for name, size, changed in rows}
        present = {self.names.name(name): name for name in names}
        for name in known.keys() - present.keys():
            self._forget(number, name)
        return {present[name]: stamp for name, stamp in known.items() if name in present}

    def note_changed(self, folder: Path, name: str, stamp: Stamp) -> None:
        """Put a file on the list of those to read."""
        self.database.execute("insert into changed values (?, ?, ?)", (escaped(f"{folder}/{name}"), *stamp))

    def changed(self) -> tuple[int, Iterator[tuple[Path, Stamp]]]:
        """Return how many files are to be read, and those."""
        count = self.database.execute("select count(*) from changed").fetchone()[0]
        rows = self.database.cursor().execute("select path, size, changed from changed")
        return count, ((Path(unescaped(path)), (size, changed)) for path, size, changed in rows)

    def forget_unvisited(self) -> None:
        """Forget the folders that this run didn't come to."""
        gone = self.database.execute("select id from folders where visit != ?", (self.visit,)).fetchall()
        for table, column in (("files", "folder"), ("slices", "folder"), ("folders", "id")):
            self.database.executemany(f"delete from {table} where {column} = ?", gone)  # noqa: S608 - fixed names

    def enter(self, path: Path, stamp: Stamp, seen: Seen) -> None:
        """Remember what a file turned out to be."""
        folder, name = self._folder(self.names.written(path.parent)), self.names.name(path.name)
        self._forget(folder, name)
        kind, content = "other", ""
        if isinstance(seen, list):
            kind = "slices"
            self.database.executemany(
                "insert into slices values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [self._slice_row(header, folder, name) for header in seen],
            )
        elif isinstance(seen, Scan):
            kind, content = "nifti", scan_json(seen)
        elif isinstance(seen, Reject):
            kind, content = "reject", json.dumps([seen.code.name, seen.detail])
        else:
            content = seen
        self.database.execute("insert into files values (?, ?, ?, ?, ?, ?)", (folder, name, *stamp, kind, content))

    def save(self) -> None:
        """Write what was entered, so that a run which is cut off goes on from here."""
        self.database.commit()

    def counts(self) -> Counter[str]:
        """Return how many files are what."""
        query = "select case kind when 'other' then content else kind end, count(*) from files group by 1"
        counts = Counter(dict(self.database.execute(query).fetchall()))
        images, nifti, rejects = SCANS
        counts[images] = self.database.execute("select count(*) from slices").fetchone()[0]
        counts[nifti] = counts.pop("nifti", 0)
        counts[rejects] = counts.pop("reject", 0)
        del counts["slices"]
        return counts

    def rejects(self) -> Iterator[Reject]:
        """Yield the rejected files."""
        query = """
            select folders.path, files.name, files.content from files join folders on folders.id = files.folder
            where kind = 'reject'
        """
        for folder, name, content in self.database.cursor().execute(query):
            code, detail = json.loads(content)
            yield Reject(joined(folder, name), RejectCode[code], detail)

    def nifti_files(self) -> Iterator[NiftiRow]:
        """Yield the NIfTI files that could be opened, by path."""
        query = """
            select folders.path, files.name, files.content, files.size, files.changed
            from files join folders on folders.id = files.folder
            where kind = 'nifti' order by folders.path, files.name
        """
        for folder, name, content, size, changed in self.database.cursor().execute(query):
            yield NiftiRow(joined(folder, name), content, (size, changed))

    def nifti_scan(self, row: NiftiRow) -> Scan:
        """Return the scan of a NIfTI file."""
        path = self.names.real(row.path, guess=True)
        return scan_from_json(row.content, path, stem(path))

    def count_studies(self) -> int:
        """Return how many studies there are; a NIfTI file is one of its own."""
        query = "select (select count(distinct study) from slices) + (select count(*) from files where kind = 'nifti')"
        return int(self.database.execute(query).fetchone()[0])

    def studies(self) -> Iterator[StudyRows]:
        """Yield the slices of each study."""
        query = """
            select slices.study, folders.path, slices.name, slices.frame, series, sop, study_id, geometry, common,
                   files.size, files.changed
            from slices join folders on folders.id = slices.folder
            join files on files.folder = slices.folder and files.name = slices.name
            order by slices.study, folders.path, slices.name, slices.frame
        """
        cursor = self.database.cursor()
        for study, rows in groupby(cursor.execute(query), key=lambda row: row[0]):
            yield StudyRows(study, tuple(rows))

    def headers(self, study: StudyRows) -> list[SliceHeader]:
        """Return the headers of a study's slices."""
        headers = []
        folders: dict[str, Path] = {}
        commons: dict[int, dict[str, Any]] = {}
        plain = self.names.key is None
        for _, folder, name, frame, series, sop, study_id, geometry, common, *_ in study.rows:
            if folder not in folders:
                folders[folder] = self.names.real(folder, guess=True)
            if common not in commons:
                query = "select content from commons where id = ?"
                commons[common] = common_fields(self.database.execute(query, (common,)).fetchone()[0])
            path = folders[folder] / unescaped(name) if plain else self.names.real(joined(folder, name), guess=True)
            own = {"path": path, "frame": frame, "series_id": series, "sop_id": sop, "study_id": study_id}
            headers.append(SliceHeader(**own, **unpacked(geometry), **commons[common]))
        return headers

    def outcome(self, study: str, fingerprint: str) -> str | None:
        """Return what came of a study whose files, rules and choice are the same as before, None otherwise."""
        query = "update studies set visit = ? where study = ? and fingerprint = ? returning content"
        found = self.database.execute(query, (self.visit, study, fingerprint)).fetchone()
        return found[0] if found else None

    def keep_outcome(self, study: str, fingerprint: str, content: str) -> None:
        """Remember what came of a study."""
        row = (study, fingerprint, content, self.visit)
        self.database.execute("insert or replace into studies values (?, ?, ?, ?)", row)

    def outcomes(self) -> Iterator[str]:
        """Yield what came of the studies of this run."""
        self.database.execute("delete from studies where visit != ?", (self.visit,))
        for (content,) in self.database.execute("select content from studies order by study"):
            yield content

    def by_path(self, rejects: Iterable[Reject]) -> Iterator[Reject]:
        """Yield rejects sorted by path, without holding them all."""
        rows = ((reject.path, reject.code.name, reject.detail, reject.scan_id) for reject in rejects)
        self.database.executemany("insert into rejected values (?, ?, ?, ?)", rows)
        for path, code, detail, scan_id in self.database.execute("select * from rejected order by 1, 2, 3, 4"):
            yield Reject(path, RejectCode[code], detail, scan_id)

    def _folder(self, written: str) -> int:
        return int(self.database.execute("select id from folders where path = ?", (written,)).fetchone()[0])

    def _forget(self, folder: int, name: str) -> None:
        self.database.execute("delete from files where folder = ? and name = ?", (folder, name))
        self.database.execute("delete from slices where folder = ? and name = ?", (folder, name))

    def _slice_row(self, header: SliceHeader, folder: int, name: str) -> tuple[Any, ...]:
        common = common_json(header)
        if common not in self._commons:
            self.database.execute("insert or ignore into commons (content) values (?)", (common,))
            found = self.database.execute("select id from commons where content = ?", (common,)).fetchone()
            if len(self._commons) > COMMONS_REMEMBERED:
                self._commons.clear()
            self._commons[common] = found[0]
        study = header.study_id or (f"series {header.series_id}" if header.series_id else f"folder {folder}")
        own = (study, folder, name, header.frame, header.series_id, header.sop_id, header.study_id)
        return (*own, packed(header), self._commons[common])


def joined(folder: str, name: str) -> str:
    """Return the path of a file, as it is written."""
    return name if folder == "." else f"{folder}/{name}"
