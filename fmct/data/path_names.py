r"""How paths are written: relative to a root, and on request with every name in them replaced by a keyed hash.

Folders are often named after patients. With `fmct index --redact-paths` each name becomes `~` and 16 hex digits that
only the holder of the key can turn back, by hashing what is on disk; so commands that read scans still find them.

Names may hold any bytes but `/`. Those that no table can hold (line ends and other control characters, bytes that are
no UTF-8) are written as `\x` and two hex digits.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

from fmct.console.errors import UsageError
from fmct.data.privacy import keyed_id

REDACTED_NAME = re.compile(r"~[0-9a-f]{16}")
UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\udc80-\udcff]|\\(?=x[0-9a-f]{2})")
ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
FOLDERS_REMEMBERED = 64


class PathNames:
    """The way paths below a root are written.

    Args:
        root: the folder that paths are relative to.
        key: the secret of the hashes; None writes names as they are.
    """

    def __init__(self, root: Path, key: bytes | None = None) -> None:
        self.root = root
        self.key = key
        self._prefix = str(root).rstrip("/") + "/"

    def written(self, path: Path | str) -> str:
        """Return a path as tables have it."""
        path = str(path)
        inside = path.startswith(self._prefix)
        relative = path.removeprefix(self._prefix) if inside else os.path.relpath(path, self.root)
        if self.key is None:
            return escaped(relative)
        return "/".join(self.name(part) for part in relative.split("/"))

    def name(self, name: str) -> str:
        """Return one file's or folder's name as tables have it."""
        return escaped(name) if self.key is None or name in {".", ".."} else redacted(name, self.key)

    def real(self, written: str, guess: bool = False) -> Path:
        """Return the path on disk.

        Args:
            written: as `written` returns it.
            guess: take a hash that no name has as it is, instead of raising: then nothing is at the path.

        Raises:
            UsageError: when no name on disk has one of the hashes: another key, or the file is gone.
        """
        path = self.root
        for part in written.split("/"):
            if self.key is not None and REDACTED_NAME.fullmatch(part):
                name = child(path, part, self.key)
                if name is None and not guess:
                    fix = "pass the root and the key (--key-file, $FMCT_KEY_FILE) that `fmct index` was given"
                    raise UsageError(f"no name in the folder has the hash {part}", str(self.root), fix)
                path = path / (name or part)
            else:
                path = path / unescaped(part)
        return path


def escaped(name: str) -> str:
    r"""Return a name, or a path, with `\x..` for what can't be written."""
    return UNWRITABLE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", name)


def unescaped(written: str) -> str:
    """Return the name, or the path, of `escaped`."""
    return ESCAPED.sub(lambda match: os.fsdecode(bytes([int(match[1], 16)])), written)


def redacted(name: str, key: bytes) -> str:
    """Return what stands for a name."""
    # between slashes, which no name holds, for blanks around what is hashed don't count
    return name if REDACTED_NAME.fullmatch(name) else f"~{keyed_id('name', f'/{escaped(name)}/', key)}"


def is_redacted(written: str) -> bool:
    """Tell whether a path was written with hashes for names."""
    return any(REDACTED_NAME.fullmatch(part) for part in written.split("/"))


def child(folder: Path, hashed: str, key: bytes) -> str | None:
    """Return the name in a folder that has a hash, None where there is none."""
    name = children(folder, key).get(hashed)
    if name is None and (name := names_by_hash(folder, key).get(hashed)):
        children.cache_clear()  # the folder has changed since
    return name


@lru_cache(maxsize=FOLDERS_REMEMBERED)
def children(folder: Path, key: bytes) -> dict[str, str]:
    """Return the names in a folder by their hashes, as they once were."""
    return names_by_hash(folder, key)


def names_by_hash(folder: Path, key: bytes) -> dict[str, str]:
    """Return the names in a folder by their hashes; none where it can't be read."""
    try:
        return {redacted(name, key): name for name in os.listdir(folder)}  # noqa: PTH208 - names alone, a million of them
    except OSError:
        return {}
