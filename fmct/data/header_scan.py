"""A quick pass over an ordinary header: little endian, with meta information, well-formed as far as it is looked at.

pydicom makes several objects of each of a header's elements, a hundred or more of them, of which a few dozen are
wanted. Here the others are hopped over. Nothing is guessed: whatever isn't ordinary – a value beyond the bytes at hand,
letters that aren't ASCII, a wanted sequence, an unknown VR – is left to pydicom, by returning None.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR, STR_VR

from fmct.data.elements import BLANKS, ESCAPE, RawElements, tag_of

UNDEFINED_LENGTH = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
DELIMITER_GROUP = 0xFFFE
META_START, META_GROUP = 132, b"\x02\0"
SYNTAX, MEDIA_CLASS = 0x00020010, 0x00020002
DEEPEST = 16
SHORT = {str(vr).encode(): str(vr) for vr in STANDARD_VR if vr not in EXPLICIT_VR_LENGTH_32}
LONG = {str(vr).encode(): str(vr) for vr in STANDARD_VR if vr in EXPLICIT_VR_LENGTH_32}
explicit = struct.Struct("<HH2sH").unpack_from
implicit = struct.Struct("<HHL").unpack_from
length_of = struct.Struct("<L").unpack_from


class NotOrdinaryError(ValueError):
    """A header that takes a parser that knows more."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """The elements that are wanted of a header.

    Attributes:
        tags: theirs, by number.
        texts: of those, the ones that hold text.
        sequences: of those, the ones that hold items.
    """

    tags: Mapping[int, BaseTag]
    texts: frozenset[int]
    sequences: frozenset[int]

    @classmethod
    def of(cls, keywords: Iterable[str]) -> Wanted:
        """Choose elements by keyword."""
        tags = {int(tag_of(keyword)): tag_of(keyword) for keyword in keywords}
        texts, sequences = (
            frozenset(number for number in tags if vr_by_dictionary(number) in vrs) for vrs in (STR_VR, {"SQ"})
        )
        return cls(tags, texts, sequences)


@dataclass(frozen=True, slots=True, eq=False)
class QuickHeader:
    """What a header says.

    Attributes:
        elements: the wanted ones.
        syntax: UID of the transfer syntax.
        media_class: SOP class by the meta information, "" without.
        pixels: tag, VR ("" where implicit) and length of the pixels' element, and the offset of its value.
    """

    elements: RawElements
    syntax: str
    media_class: str
    pixels: tuple[int, str, int, int]


def quick_header(start: bytes, wanted: Wanted, pixel_tags: Container[int]) -> QuickHeader | None:
    """Read a header up to its pixels.

    Args:
        start: the first bytes of the file.
        wanted: which elements to keep.
        pixel_tags: where to stop.

    Returns:
        What it says; None where that takes pydicom, or more bytes.
    """
    if start[META_START - 4 : META_START] != b"DICM":
        return None
    try:
        return scanned(start, wanted, pixel_tags)
    except (NotOrdinaryError, struct.error, UnicodeDecodeError):  # struct's: the bytes end
        return None


def scanned(start: bytes, wanted: Wanted, pixel_tags: Container[int]) -> QuickHeader:
    """Read a header.

    Raises:
        NotOrdinaryError: when it isn't one that this can read.
        struct.error: when it ends before its pixels.
    """
    meta, position = meta_uids(start)
    syntax = meta.get(SYNTAX, "")
    if syntax in {"", ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}:
        raise NotOrdinaryError
    is_implicit = syntax == ImplicitVRLittleEndian
    if is_implicit and start[position + 4 : position + 6].isalpha():  # then it may be explicit all the same
        raise NotOrdinaryError
    found = RawElements()
    tags, texts = wanted.tags, wanted.texts
    while True:
        tag, vr, length, position = element_at(start, position, is_implicit)
        if tag in pixel_tags:
            return QuickHeader(found, syntax, meta.get(MEDIA_CLASS, ""), (tag, vr, length, position))
        if length == UNDEFINED_LENGTH:
            if tag in tags:
                raise NotOrdinaryError
            position = end_of_sequence(start, position, tag, vr, is_implicit, 0)
            continue
        if tag in tags:
            value = start[position : position + length]
            is_plain = tag not in texts or (value.isascii() and ESCAPE not in value)
            if len(value) < length or tag in wanted.sequences or not is_plain:
                raise NotOrdinaryError
            key = tags[tag]
            found.by_tag[key] = RawDataElement(key, vr or None, length, value or None, position, is_implicit, True)
        position += length


def meta_uids(start: bytes) -> tuple[dict[int, str], int]:
    """Return the UIDs in the meta information, and where the data set begins."""
    uids: dict[int, str] = {}
    position = META_START
    while start[position : position + 2] == META_GROUP:
        tag, _, length, value = element_at(start, position, is_implicit=False)
        if tag in {SYNTAX, MEDIA_CLASS}:
            uids[tag] = start[value : value + length].decode("ascii").strip(BLANKS)
        position = value + length
    return uids, position


def element_at(start: bytes, position: int, is_implicit: bool) -> tuple[int, str, int, int]:
    """Return tag, VR ("" where implicit) and length of an element, and where its value begins."""
    if is_implicit:
        group, element, length = implicit(start, position)
        vr, value = "", position + 8
    else:
        group, element, code, length = explicit(start, position)
        if code in SHORT:
            vr, value = SHORT[code], position + 8
        elif code in LONG:
            vr, (length,), value = LONG[code], length_of(start, position + 8), position + 12
        elif group == DELIMITER_GROUP:
            _, _, length = implicit(start, position)
            vr, value = "", position + 8
        else:
            raise NotOrdinaryError
    return group << 16 | element, vr, length, value


def end_of_sequence(start: bytes, position: int, tag: int, vr: str, is_implicit: bool, depth: int) -> int:
    """Return where a sequence of undefined length, the first item of which is at a position, has ended."""
    if depth > DEEPEST or (vr or vr_by_dictionary(tag) or "SQ") != "SQ":
        raise NotOrdinaryError
    while True:
        tag, _, length, position = element_at(start, position, is_implicit=True)
        if tag == SEQUENCE_END:
            return position
        if tag != ITEM:
            raise NotOrdinaryError
        position = end_of_item(start, position, is_implicit, depth) if length == UNDEFINED_LENGTH else position + length


def end_of_item(start: bytes, position: int, is_implicit: bool, depth: int) -> int:
    """Return where an item of undefined length, the first element of which is at a position, has ended."""
    while True:
        tag, vr, length, position = element_at(start, position, is_implicit)
        if tag == ITEM_END:
            return position
        if length == UNDEFINED_LENGTH:
            position = end_of_sequence(start, position, tag, vr, is_implicit, depth + 1)
        else:
            position += length


def vr_by_dictionary(tag: int) -> str:
    """Return an element's VR as the standard has it, "" for private elements."""
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""
