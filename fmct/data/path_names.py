"""How paths are written: relative to a root, and on request with every name in them replaced by a keyed hash.

Folders are often named after patients. With `fmct index --redact-paths` each name becomes `~` and 12 hex digits that
only the holder of the key can turn back, by hashing what is on disk; so commands that read scans still find them.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

from fmct.console.errors import UsageError
from fmct.data.privacy import keyed_id

REDACTED_NAME = re.compile(r"~[0-9a-f]{12}")
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

    def written(self, path: Path | str) -> str:
        """Return a path as tables have it."""
        relative = os.path.relpath(path, self.root)
        if self.key is None:
            return relative
        return "/".join(self.name(part) for part in Path(relative).parts)

    def name(self, name: str) -> str:
        """Return one file's or folder's name as tables have it."""
        return name if self.key is None or name in {".", ".."} else redacted(name, self.key)

    def real(self, written: str) -> Path:
        """Return the path on disk.

        Raises:
            UsageError: when no name on disk has one of the hashes: another key, or the file is gone.
        """
        path = self.root
        for part in written.split("/"):
            if self.key is not None and REDACTED_NAME.fullmatch(part):
                name = children(path, self.key).get(part)
                if name is None:
                    fix = "pass the root and the key (--key-file, $FMCT_KEY_FILE) that `fmct index` was given"
                    raise UsageError(f"no name in the folder has the hash {part}", str(self.root), fix)
                path = path / name
            else:
                path = path / part
        return path


def redacted(name: str, key: bytes) -> str:
    """Return what stands for a name."""
    return f"~{keyed_id('name', name, key)[:12]}"


def is_redacted(written: str) -> bool:
    """Tell whether a path was written with hashes for names."""
    return any(REDACTED_NAME.fullmatch(part) for part in written.split("/"))


@lru_cache(maxsize=FOLDERS_REMEMBERED)
def children(folder: Path, key: bytes) -> dict[str, str]:
    """Return the names in a folder by their hashes; none where it can't be read."""
    try:
        return {redacted(name, key): name for name in os.listdir(folder)}  # noqa: PTH208 - names alone, a million of them
    except OSError:
        return {}
