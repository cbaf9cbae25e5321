"""What `fmct index` has read, in one SQLite file: so that memory stays flat and a second run reads only what changed.

Paths in it are as they are written everywhere (hashed with --redact-paths), identifiers are hashes. It can be deleted
at any time; then everything is read again.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from fmct.data.dicom import SliceHeader
from fmct.data.header_codec import common_fields, common_json, packed, scan_from_json, scan_json, unpacked
from fmct.data.nifti import stem
from fmct.data.path_names import PathNames
from fmct.data.rejection import Reject, RejectCode
from fmct.data.scan import Scan

COMMONS_REMEMBERED = 10000
VERSION = 1
"""Raised whenever what is remembered would be read differently now."""
TABLES = """
create table meta (name text primary key, value text);
create table folders (id integer primary key, path text unique, visit integer);
create table files (folder integer, name text, size integer, changed integer, kind text, content text,
                    primary key (folder, name)) without rowid;
create table commons (id integer primary key, content text unique);
create table slices (study text, folder integer, name text, frame integer, series text, sop text, study_id text,
                     geometry blob, common integer);
create index slices_by_study on slices (study);
create index slices_by_file on slices (folder, name);
create table studies (study text primary key, fingerprint text, content text, visit integer);
"""
LISTS = """
create temp table changed (path text, size integer, changed integer);
create temp table rejected (path text, code text, detail text, scan_id text);
"""

Seen = list[SliceHeader] | Scan | Reject | str
"""What a file turned out to be: slices, a NIfTI scan, a reject, or a word for what is passed over."""
Stamp = tuple[int, int]
"""Size and time of the last change, by which a file that was read before is known again."""


@dataclass(frozen=True)
class StudyRows:
    """The slices of a study as stored: cheap to compare, made into headers only when something changed."""

    study: str
    rows: tuple[tuple[Any, ...], ...]


class HeaderStore:
    """The store of one index.

    Args:
        path: of the SQLite file; made where there is none, and begun anew where it was made under other conditions.
        names: how paths are written.
        conditions: what the store's content depends on (the key, say); none of it may identify anyone.
    """

    def __init__(self, path: Path, names: PathNames, conditions: Mapping[str, str]) -> None:
        self.names = names
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        wanted = {"version": str(VERSION), **conditions}
        if path.exists() and stored_conditions(path) != wanted:
            path.unlink()
        fresh = not path.exists()
        path.touch(mode=0o600)
        self.database = sqlite3.connect(path)
        self.database.execute("pragma synchronous = off")
        self.database.execute("pragma cache_size = -65536")
        if fresh:
            self.database.executescript(TABLES)
            self.database.executemany("insert into meta values (?, ?)", wanted.items())
            self.database.commit()
        self.database.executescript(LISTS)
        last = self.database.execute("select max(visit) from folders").fetchone()[0]
        self.visit = (last or 0) + 1
        self._commons: dict[str, int] = {}

    def close(self) -> None:
        """Write everything and close the file."""
        self.database.commit()
        self.database.close()

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

    def note_changed(self, path: Path, stamp: Stamp) -> None:
        """Put a file on the list of those to read."""
        self.database.execute("insert into changed values (?, ?, ?)", (str(path), *stamp))

    def changed(self) -> tuple[int, Iterator[tuple[Path, Stamp]]]:
        """Return how many files are to be read, and those."""
        count = self.database.execute("select count(*) from changed").fetchone()[0]
        rows = self.database.cursor().execute("select path, size, changed from changed")
        return count, ((Path(path), (size, changed)) for path, size, changed in rows)

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
        counts["DICOM images"] = self.database.execute("select count(*) from slices").fetchone()[0]
        counts["NIfTI files"] = counts.pop("nifti", 0)
        counts["files that can't be used"] = counts.pop("reject", 0)
        del counts["slices"]
        return counts

    def rejects(self) -> Iterator[Reject]:
        """Yield the rejected files, by path."""
        for path, content in self._files("reject"):
            code, detail = json.loads(content)
            yield Reject(path, RejectCode[code], detail)

    def nifti_scans(self) -> Iterator[Scan]:
        """Yield the NIfTI files that could be opened, by path."""
        for path, content in self._files("nifti"):
            real = self.names.real(path)
            yield scan_from_json(content, real, stem(real))

    def count_studies(self) -> int:
        """Return how many studies there are."""
        return int(self.database.execute("select count(distinct study) from slices").fetchone()[0])

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
        for _, folder, name, frame, series, sop, study_id, geometry, common, *_ in study.rows:
            if folder not in folders:
                folders[folder] = self.names.real(folder)
            if common not in commons:
                query = "select content from commons where id = ?"
                commons[common] = common_fields(self.database.execute(query, (common,)).fetchone()[0])
            path = folders[folder] / name if self.names.key is None else self.names.real(f"{folder}/{name}")
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

    def _files(self, kind: str) -> Iterator[tuple[str, str]]:
        query = """
            select folders.path, files.name, files.content from files join folders on folders.id = files.folder
            where kind = ? order by folders.path, files.name
        """
        for folder, name, content in self.database.cursor().execute(query, (kind,)):
            yield (name if folder == "." else f"{folder}/{name}"), content

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


def stored_conditions(path: Path) -> dict[str, str]:
    """Return under which conditions a store was made; nothing for a file that is none."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            return dict(database.execute("select name, value from meta").fetchall())
    except sqlite3.DatabaseError:
        return {}
