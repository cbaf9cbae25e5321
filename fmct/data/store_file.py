"""The file of a header store: opened, begun anew where another key or version made it, never shared by two runs."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from fmct.console.errors import UsageError
from fmct.data.header_store import HeaderStore
from fmct.data.path_names import PathNames
from fmct.data.privacy import keyed_id
from fmct.data.store_tables import TABLES

VERSION = 2
"""Raised whenever what is remembered would be read differently now."""


@contextlib.contextmanager
def open_store(path: Path, names: PathNames, key: bytes, fresh: bool = False) -> Iterator[HeaderStore]:
    """Open a store, and save and close it at the end, also after an error.

    Args:
        path: of the SQLite file; made where there is none, begun anew where another key, root or version made it.
        names: how paths are written.
        key: the secret of the hashes in the store.
        fresh: begin anew in any case.

    Raises:
        UsageError: when the file can't be written, is damaged, or another process is writing to it.
    """
    conditions = {"version": str(VERSION), "root": names.name(str(names.root)), "key": keyed_id("key", "check", key)}
    try:
        with contextlib.closing(connected(path, conditions, fresh)) as database:
            store = HeaderStore(database, names)
            try:
                yield store
            finally:
                store.save()
    except sqlite3.DatabaseError as error:
        fix = "let the other run end, free disk space, or, if it is damaged, begin anew with --fresh"
        raise UsageError(f"what earlier runs have read can't be used ({error})", path, fix) from error


def connected(path: Path, conditions: dict[str, str], fresh: bool) -> sqlite3.Connection:
    """Return the open database, with its tables.

    Args:
        path: of the file.
        conditions: what the store's content depends on; none of it may identify anyone.
        fresh: begin anew in any case.

    Raises:
        UsageError: when the file can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh or (path.exists() and stored_conditions(path) != conditions):
            discard(path)
        new = not path.exists()
        path.touch(mode=0o600)
    except OSError as error:
        raise UsageError(f"the folder can't be written to ({error.strerror})", path.parent, "choose another") from error
    database = sqlite3.connect(path)
    database.execute("pragma synchronous = off")
    database.execute("pragma locking_mode = exclusive")
    if new:
        database.executescript(TABLES)
        database.executemany("insert into meta values (?, ?)", conditions.items())
        database.commit()
    return database


def discard(path: Path) -> None:
    """Remove a store, and what SQLite keeps beside one that was cut off."""
    for part in (path, journal_of(path)):
        part.unlink(missing_ok=True)


def journal_of(path: Path) -> Path:
    """Return the file in which SQLite keeps what it would need to undo the changes under way."""
    return path.with_name(f"{path.name}-journal")


def stored_conditions(path: Path) -> dict[str, str]:
    """Return under which conditions a store was made; nothing for a file that is none.

    Raises:
        sqlite3.DatabaseError: when another process is writing to it.
    """
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            return dict(database.execute("select name, value from meta").fetchall())
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
            raise
        return {}
