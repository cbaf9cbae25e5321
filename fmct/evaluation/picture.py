"""Pictures within a page: a PNG as a data URI, with what it shows in words."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from fmct.console.errors import UsageError

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """An embedded picture.

    Attributes:
        source: data URI.
        alt: what it shows, in words.
        caption: text under it, may be empty.
    """

    source: str
    alt: str
    caption: str = ""

    @classmethod
    def of(cls, content: bytes, alt: str, caption: str = "") -> Picture:
        """Embed a PNG."""
        return cls(f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}", alt, caption)

    @classmethod
    def read(cls, path: Path, alt: str, caption: str = "") -> Picture:
        """Embed a file.

        Raises:
            UsageError: when it is no PNG.
        """
        content = path.read_bytes()
        if not content.startswith(PNG_MAGIC):
            raise UsageError("not a PNG picture", path, "delete it, or let what made it write it anew")
        return cls.of(content, alt, caption)
