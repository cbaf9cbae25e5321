"""Identifiers of others' tables as the manifest has them: already, or once hashed with its key."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path

from fmct.console.errors import require_file
from fmct.data.privacy import DEFAULT_KEY_FILE, keyed_id, read_key

HASHED_COLUMNS = {"patient_id": "patient", "study_id": "study"}


def joining_key(path: Path | None) -> bytes | None:
    """Return the key that the manifest's identifiers were hashed with, None where there is none: none is ever made.

    Args:
        path: the key's file; None means the default one, which needn't be there.

    Raises:
        UsageError: when a file is named and missing.
    """
    if path is not None:
        return read_key(require_file(path, "the key file", "name the one that `fmct index` used"))
    return read_key() if DEFAULT_KEY_FILE.expanduser().exists() else None


def as_in_manifest(values: Iterable[str], known: Container[str], kind: str, key: bytes | None) -> dict[str, str]:
    """Map a table's identifiers to the manifest's.

    Args:
        values: as the table has them: in the clear, or hashed already.
        known: the manifest's.
        kind: what is hashed, as `keyed_id` calls it: "patient" or "study".
        key: the secret of the hashes; None: nothing is hashed.

    Returns:
        For each value itself where the manifest has it so, else its hash.
    """
    return {
        value: value if key is None or value in known else keyed_id(kind, value, key) for value in dict.fromkeys(values)
    }
