"""The sizes of vision transformers that go by a name."""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    """What a size is short for."""

    width: int
    depth: int
    heads: int


SIZES = {
    "small": Size(384, 12, 6),
    "base": Size(768, 12, 12),
    "large": Size(1024, 24, 16),
    "huge": Size(1280, 32, 16),
}
"""The usual ones (Dosovitskiy et al. 2021, table 1; small: Touvron et al. 2021, arXiv 2012.12877, table 1)."""
