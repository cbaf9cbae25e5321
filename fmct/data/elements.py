"""Values of a parsed data set as text and numbers.

pydicom turns every value into an object of its own before it hands it out, and checks it. That is most of the time of
reading a header. Plain text and small integers are taken from the bytes here; whatever is neither goes to pydicom.
"""

from __future__ import annotations

import math
import sys
from functools import lru_cache
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

ESCAPE = b"\x1b"
BLANKS = " \0"
SHORT_VRS = {"US", "SS", "OW", "UN", None}
ITEM_TAG = b"\xfe\xff\x00\xe0"
MOST_ITEMS = 1_000_000
"""A sequence of more is refused: an empty item takes 8 bytes in a file, and 100 times that as an object."""


class RawElements:
    """Elements as they were read, with as much of a `Dataset` as is asked for here."""

    __slots__ = ("by_tag",)

    def __init__(self) -> None:
        self.by_tag: dict[BaseTag, RawDataElement] = {}

    def get_item(self, key: BaseTag, *, keep_deferred: bool = False) -> RawDataElement | None:
        """Return an element as it was read."""
        return self.by_tag.get(key)

    def get(self, key: BaseTag) -> Any:
        """Return an element (None where there is none) with its value as pydicom has it."""
        return Dataset({key: self.by_tag[key]}).get(key) if key in self.by_tag else None


Elements = Dataset | RawElements


@lru_cache(maxsize=256)
def tag_of(keyword: str) -> BaseTag:
    """Return the tag of a DICOM keyword."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return BaseTag(tag)


def element_of(dataset: Elements, keyword: str) -> RawDataElement | DataElement | None:
    """Return an element as it was read, None where there is none."""
    return dataset.get_item(tag_of(keyword), keep_deferred=True)


def text(dataset: Elements, keyword: str) -> str:
    """Return a value as text without blanks around it, several values joined by a backslash, "" where there is none."""
    element = element_of(dataset, keyword)
    if element is None:
        return ""
    value = element.value
    if isinstance(element, RawDataElement):
        if not value:
            return ""
        if value.isascii() and ESCAPE not in value:
            found = value.decode("ascii").strip(BLANKS)
            return sys.intern("\\".join(part.strip(BLANKS) for part in found.split("\\")) if "\\" in found else found)
        value = dataset.get(tag_of(keyword)).value
    if value is None:
        return ""
    if isinstance(value, MultiValue):
        return sys.intern("\\".join(str(part).strip(BLANKS) for part in value))
    return sys.intern(str(value).strip(BLANKS))


def numbers(dataset: Elements, keyword: str) -> tuple[float, ...]:
    """Return a value as numbers; () where it is missing or one of them isn't a finite number."""
    found = text(dataset, keyword)
    if not found or "_" in found:
        return ()
    try:
        parts = tuple(float(part) for part in found.split("\\"))
    except ValueError:
        return ()
    return parts if all(map(math.isfinite, parts)) else ()


def number(dataset: Elements, keyword: str, default: float) -> float:
    """Return the only number of an element, or the default where the element is missing or empty.

    Raises:
        ValueError: when there is something else.
    """
    found = numbers(dataset, keyword)
    if len(found) == 1:
        return found[0]
    if text(dataset, keyword):
        raise ValueError(f"{keyword} is not one number")
    return default


def integer(dataset: Elements, keyword: str, default: int = 0) -> int:
    """Return the first integer of an element, or the default where the element is missing or empty.

    Of 16 bits the sign is left to the caller: the header's VR often has it wrong.

    Raises:
        ValueError: when there is something else.
    """
    element = element_of(dataset, keyword)
    if element is None:
        return default
    value = element.value
    if isinstance(element, RawDataElement):
        if not value:
            return default
        if element.VR in SHORT_VRS and len(value) == 2:
            return int.from_bytes(value, "little" if element.is_little_endian else "big")
        value = dataset.get(tag_of(keyword)).value
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    return default if value is None or value == "" else int(value)


def items(dataset: Elements, keyword: str) -> list[Dataset]:
    """Return the items of a sequence, none where it is missing.

    Raises:
        ValueError: when it has more than `MOST_ITEMS`.
    """
    element = element_of(dataset, keyword)
    if element is None:
        return []
    value = element.value
    if isinstance(element, RawDataElement):
        if not value:
            return []
        if value.count(ITEM_TAG) > MOST_ITEMS:
            raise ValueError(f"{keyword} has more than {MOST_ITEMS} items")
        value = dataset.get(tag_of(keyword)).value
    return [item for item in value if isinstance(item, Dataset)] if isinstance(value, Sequence) else []
