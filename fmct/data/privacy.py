"""Identifiers that can't be turned back: keyed hashes of patients and studies, and the key's file.

A plain hash of a medical record number is no protection, for all numbers can be tried in seconds. A keyed one (HMAC)
is, as long as the key stays in the hospital. Everyone with the same key gets the same identifiers, so that manifests
made at different times join.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from fmct.console.errors import UsageError

DEFAULT_KEY_FILE = Path("~/.config/fmct/patient_id.key")
KEY_FILE_VARIABLE = "FMCT_KEY_FILE"
HASH_CHARACTERS = 16
SHORTEST_KEY_CHARACTERS = 32
OLDEST_AGE_YEARS = 90.0


def read_key(path: Path | None = None, make: bool = True) -> bytes:
    """Return the secret key, making the file (mode 600, 256 random bits) where there is none yet.

    Args:
        path: the key's file; None means `$FMCT_KEY_FILE`, else `~/.config/fmct/patient_id.key`.
        make: otherwise a missing file is an error.

    Raises:
        UsageError: when the file is too short to be a key, or can't be read or made.
    """
    path = (path or Path(os.environ.get(KEY_FILE_VARIABLE) or DEFAULT_KEY_FILE)).expanduser()
    if not make and not path.exists():
        fix = f"name the key file that `fmct index` used in ${KEY_FILE_VARIABLE}"
        raise UsageError("the key that the paths were hashed with isn't here", path, fix)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = path.read_bytes().strip()
        else:
            key = secrets.token_hex(32).encode()
            with os.fdopen(descriptor, "wb") as file:
                file.write(key + b"\n")
    except OSError as error:
        raise UsageError(f"the key file can't be used ({error.strerror})", path, "pass --key-file PATH") from error
    if len(key) < SHORTEST_KEY_CHARACTERS:
        raise UsageError(
            f"the key has {len(key)} characters, fewer than {SHORTEST_KEY_CHARACTERS}",
            path,
            "put in a longer random text, or remove the file so that a key is made",
        )
    return key


def keyed_id(kind: str, value: str, key: bytes) -> str:
    """Return the first 16 hex digits of HMAC-SHA256 over `kind:value`.

    Args:
        kind: what is hashed ("patient", "study"), so that equal values of two kinds don't collide.
        value: the identifier in the clear; surrounding blanks don't count.
        key: the secret from `read_key`.
    """
    return hmac.new(key, f"{kind}:{value.strip()}".encode(), hashlib.sha256).hexdigest()[:HASH_CHARACTERS]


def uid_hash(uid: str) -> str:
    """Return the first 16 hex digits of a UID's SHA-256: a DICOM UID is long and random enough to need no key."""
    return hashlib.sha256(uid.strip().encode()).hexdigest()[:HASH_CHARACTERS]


def age_years(text: str) -> float:
    """Turn a DICOM age (`076Y`, `018M`, `006W`, `020D`) into years; NaN for anything else.

    Ages above 89 become 90: by themselves they can identify a person (HIPAA, 45 CFR 164.514(b)(2)(i)(C)).
    """
    match = re.fullmatch(r"(\d{1,3})([YMWD])", text.strip().upper())
    if match is None:
        return float("nan")
    per_year = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}[match[2]]
    return min(round(int(match[1]) / per_year, 2), OLDEST_AGE_YEARS)


@lru_cache(maxsize=4)
def years_between(birth: str, study: str) -> float:
    """Return the age in years at a study from two DICOM dates (`19610203`), capped as `age_years` does; NaN if odd."""
    try:
        days = (datetime.strptime(study, "%Y%m%d") - datetime.strptime(birth, "%Y%m%d")).days
    except ValueError:
        return float("nan")
    return min(round(days / 365.25, 2), OLDEST_AGE_YEARS) if days >= 0 else float("nan")
