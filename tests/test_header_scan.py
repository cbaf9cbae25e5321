"""Ordinary headers, read quickly, against the same read by pydicom; what isn't ordinary is left to it."""

from __future__ import annotations

import random
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutated_files import mutated
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from single_files import item, multi_frame, save, transcode, waves, write_slice

from fmct.data import dicom_file
from fmct.data.dicom import HEADER_ELEMENTS, read_headers
from fmct.data.dicom_file import FIRST_BYTES, PIXEL_KEYWORDS, open_dicom
from fmct.data.header_scan import quick_header
from fmct.data.rejection import ScanError


def nested() -> list[Dataset]:
    """Items with items within."""
    return [item(PatientComments="x" * 40, RequestAttributesSequence=[item(PatientComments="y"), item()]), item()]


def slice_file(path: Path, syntax: str = ExplicitVRLittleEndian, undefined: bool = False, **tags: Any) -> Path:
    """A slice with nested sequences, private elements and empty ones."""
    dataset = dcmread(write_slice(path, waves(12, False).astype(np.uint16), 12, PixelPaddingValue=63536, **tags))
    dataset.OtherPatientIDsSequence = nested()
    block = dataset.private_block(0x0045, "SOME MAKER", create=True)
    block.add_new(0x01, "LO", "something")
    block.add_new(0x02, "SQ", nested())
    dataset.PatientAge = ""
    if undefined:
        everything: list[Dataset] = [dataset]
        for one in everything:
            for element in one:
                if element.VR == "SQ":
                    element.is_undefined_length = True
                    everything += element.value
                    for entry in element.value:
                        entry.is_undefined_length_sequence_item = True
    return save(dataset, path, syntax)


def quickly(path: Path) -> Any:
    return quick_header(path.read_bytes()[:FIRST_BYTES], HEADER_ELEMENTS, PIXEL_KEYWORDS)


def values(header: Any) -> tuple[Any, ...]:
    """A header's fields; NaN is equal to itself."""
    return tuple(str(getattr(header, field.name)) for field in fields(header))


def outcome(path: Path) -> Any:
    try:
        return [values(header) for header in read_headers(path)]
    except ScanError as error:
        return error.code


def by_pydicom(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(dicom_file, "quick_header", lambda *_: None)
        return outcome(path)


def check_alike(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick way is gone, and every element, the pixels' place and the header are those that pydicom reads."""
    assert quickly(path) is not None
    with open_dicom(path, HEADER_ELEMENTS) as file, monkeypatch.context() as patch:
        patch.setattr(dicom_file, "quick_header", lambda *_: None)
        with open_dicom(path, HEADER_ELEMENTS) as expected:
            assert (file.syntax, file.media_class, file.pixels) == (
                expected.syntax, expected.media_class, expected.pixels,
            )  # fmt: skip
            assert (file.size, file.changed_ns) == (expected.size, expected.changed_ns)
            for tag in HEADER_ELEMENTS.tags.values():
                one, other = (parsed.dataset.get_item(tag, keep_deferred=True) for parsed in (file, expected))
                assert (one is None) == (other is None), tag
                if one is not None and other is not None:
                    assert (one.VR, one.value or None) == (other.VR, other.value or None), tag
    assert outcome(path) == by_pydicom(path, monkeypatch)


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_ordinary_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: str, undefined: bool) -> None:
    path = slice_file(tmp_path / "a", syntax, undefined)
    assert (b"\xfe\xff\xdd\xe0" in path.read_bytes()) == undefined
    check_alike(path, monkeypatch)


@pytest.mark.parametrize("name", ["JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"])
def test_compressed_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert transcode(slice_file(tmp_path / "a"), tmp_path / "b", name)
    check_alike(tmp_path / "b", monkeypatch)


@pytest.mark.parametrize("name", ["ge_head_tilt", "headneck_pycerr", "philips_phantom_study", "single_files"])
def test_real_headers(shared_scans: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    quick = 0
    for path in sorted((shared_scans / "dicom" / name).rglob("*"))[:60:6]:
        if path.is_file() and quickly(path) is not None:
            check_alike(path, monkeypatch)
            quick += 1
    assert quick


def test_what_is_not_ordinary_is_left_to_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    for syntax in (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        stored = waves(12, False).astype(np.uint16)
        assert quickly(write_slice(path, stored, 12, syntax=syntax)) is None
        assert len(outcome(path)) == 1
    frames = multi_frame(np.zeros((3, 8, 8), np.int16), np.zeros((3, 3)))
    assert quickly(save(frames, path)) is None  # its sequences are wanted
    assert len(outcome(path)) == 3
    assert quickly(slice_file(path, SpecificCharacterSet="ISO_IR 192", Manufacturer="Bödö")) is None
    assert read_headers(path)[0].manufacturer == "Bödö"
    content = slice_file(path).read_bytes()
    assert quick_header(content[:FIRST_BYTES][128:], HEADER_ELEMENTS, PIXEL_KEYWORDS) is None  # no preamble
    for end in range(0, content.index(b"\xe0\x7f\x10\0OW") + 12, 7):
        assert quick_header(content[:end], HEADER_ELEMENTS, PIXEL_KEYWORDS) is None
    place = content.index(b"\x08\0\x60\0CS")
    path.write_bytes(content[: place + 4] + b"C1" + content[place + 6 :])  # no VR
    assert quickly(path) is None
    deep = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 100
    ends = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0" * 100
    path.write_bytes(content[:place] + deep + ends + content[place:])
    assert quickly(path) is None
    assert outcome(path) == by_pydicom(path, monkeypatch)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_headers_are_judged_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    contents = [
        slice_file(tmp_path / "a", syntax, undefined).read_bytes()
        for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
        for undefined in (False, True)
    ]
    path, quick = tmp_path / "b", 0
    for number in range(200):
        path.write_bytes(mutated(contents[number % 4], random.Random(f"{seed} {number}")))
        quick += quickly(path) is not None
        assert outcome(path) == by_pydicom(path, monkeypatch), number
    assert quick > 50
