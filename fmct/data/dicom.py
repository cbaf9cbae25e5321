"""DICOM files: the header of a slice, and its pixels in HU.

pydicom parses and decodes; what the values mean is decided here.

Nothing that identifies a patient leaves this file: identifiers are hashed as they are read, and values that pydicom
complains about aren't shown, for such warnings quote the header.
"""

from __future__ import annotations

import math
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from fmct.data.geometry import PADDING_HU
from fmct.data.privacy import age_years, keyed_id, uid_hash, years_between
from fmct.data.rejection import RejectCode, ScanError

INDEX_OBJECT_UID = "1.2.840.10008.1.3.10"
READ_TAGS: list[Any] = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "ImageType", "PatientID",
    "PatientAge", "PatientBirthDate", "StudyDate", "PatientSex", "Manufacturer", "ManufacturerModelName",
    "ConvolutionKernel", "KVP", "ContrastBolusAgent", "StudyDescription", "SeriesDescription", "Rows", "Columns",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "PixelSpacing", "ImagePositionPatient",
    "ImageOrientationPatient", "FrameOfReferenceUID",
]  # fmt: skip
UNSHARED_KEY = secrets.token_bytes(32)
NO_CONTRAST = {"", "NO", "NONE", "N", "0", "NO CONTRAST", "WITHOUT", "WITHOUT CONTRAST", "NO IV CONTRAST"}
BONE_WORDS = ("bone", "osseous", "knochen", "temporal")


@dataclass(frozen=True, slots=True, eq=False)
class SliceHeader:
    """What a file says about one slice; geometry in DICOM's LPS millimeters, empty tuples where it says nothing.

    Attributes:
        frame: the slice's number in a file of many frames, from 0; 0 in other files.
        sop_id: `uid_hash` of the SOPInstanceUID; this and the identifiers below are "" where the file has none.
        study_id: `keyed_id` of the StudyInstanceUID.
        series_id: `uid_hash` of the SeriesInstanceUID.
        patient_id: `keyed_id` of the PatientID.
        frame_of_reference: `uid_hash` of the FrameOfReferenceUID.
        study_description: `keyed_id` of the StudyDescription in small letters, for it may name the patient.
        says_bone: whether the series' description calls it a bone reconstruction.
    """

    path: Path
    frame: int
    sop_class: str
    sop_id: str
    study_id: str
    series_id: str
    patient_id: str
    frame_of_reference: str
    modality: str
    image_type: tuple[str, ...]
    rows: int
    columns: int
    samples: int
    photometric: str
    pixel_spacing_mm: tuple[float, ...]
    position_lps_mm: tuple[float, ...]
    orientation_lps: tuple[float, ...]
    manufacturer: str
    model: str
    kernel: str
    kvp: float
    contrast: bool
    age: float
    sex: str
    study_description: str
    says_bone: bool


def has_prefix(path: Path) -> bool | None:
    """Tell DICOM files by their first bytes: True with the DICM prefix, False for a bare data set, None for neither.

    Some old archives hold files without preamble; those begin with an element of group 2 or 8, in little endian.
    """
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM":
        return True
    return False if len(start) == 132 and start[:2] in {b"\x02\0", b"\x08\0"} and start[3] == 0 else None


def read_headers(path: Path, prefixed: bool = True, key: bytes = UNSHARED_KEY) -> list[SliceHeader]:
    """Read the headers of the slices in a file that looks like DICOM.

    Args:
        path: the file.
        prefixed: whether it has the DICM prefix; without, what can't be parsed is taken for no DICOM file at all.
        key: the secret of the hashes; without it, identifiers hold within this process only.

    Returns:
        One header for each slice; none for an object that is no image of a series (DICOMDIR and the like).

    Raises:
        ScanError: UNREADABLE, when it is damaged.
    """
    with quiet_pydicom():
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=READ_TAGS, force=True)
            media_class = str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
            if media_class == INDEX_OBJECT_UID or not (prefixed or text(dataset, "Modality")):
                return []
            return [header_from(dataset, path, key)]
        except Exception as error:  # a damaged header can break pydicom in any way
            if not prefixed:
                return []
            raise ScanError(RejectCode.UNREADABLE, path, f"header can't be parsed ({type(error).__name__})") from error


def header_from(dataset: Dataset, path: Path, key: bytes) -> SliceHeader:
    """Pick what is needed from a dataset; strings that all slices of a series share are kept once."""
    kvp = numbers(dataset, "KVP")
    return SliceHeader(
        path=path,
        frame=0,
        sop_class=text(dataset, "SOPClassUID"),
        sop_id=hashed(uid_hash, text(dataset, "SOPInstanceUID")),
        study_id=hashed(keyed_id, "study", text(dataset, "StudyInstanceUID"), key),
        series_id=hashed(uid_hash, text(dataset, "SeriesInstanceUID")),
        patient_id=hashed(keyed_id, "patient", text(dataset, "PatientID"), key),
        frame_of_reference=hashed(uid_hash, text(dataset, "FrameOfReferenceUID")),
        modality=text(dataset, "Modality"),
        image_type=tuple(sys.intern(value) for value in text(dataset, "ImageType").upper().split("\\")),
        rows=int(dataset.get("Rows") or 0),
        columns=int(dataset.get("Columns") or 0),
        samples=int(dataset.get("SamplesPerPixel") or 1),
        photometric=text(dataset, "PhotometricInterpretation"),
        pixel_spacing_mm=numbers(dataset, "PixelSpacing"),
        position_lps_mm=numbers(dataset, "ImagePositionPatient"),
        orientation_lps=numbers(dataset, "ImageOrientationPatient"),
        manufacturer=text(dataset, "Manufacturer"),
        model=text(dataset, "ManufacturerModelName"),
        kernel=text(dataset, "ConvolutionKernel"),
        kvp=kvp[0] if kvp else math.nan,
        contrast=text(dataset, "ContrastBolusAgent").upper() not in NO_CONTRAST,
        age=age_at_study(dataset),
        sex=text(dataset, "PatientSex").upper(),
        study_description=hashed(keyed_id, "description", text(dataset, "StudyDescription").casefold(), key),
        says_bone=any(word in text(dataset, "SeriesDescription").casefold() for word in BONE_WORDS),
    )


def hashed(function: Callable[..., str], *values: Any) -> str:
    """Return the hash of an identifier, "" where there is none."""
    return function(*values) if all(values) else ""


def age_at_study(dataset: Dataset) -> float:
    """Return the age in years: as stated, else from the dates of birth and study; NaN where neither says."""
    stated = age_years(text(dataset, "PatientAge"))
    if not math.isnan(stated):
        return stated
    return years_between(text(dataset, "PatientBirthDate"), text(dataset, "StudyDate"))


def text(dataset: Dataset, tag: str) -> str:
    """Return a value as text without blanks around it, several values joined by a backslash, "" where there is none."""
    value = dataset.get(tag)
    if value is None:
        return ""
    if isinstance(value, pydicom.multival.MultiValue):
        return sys.intern("\\".join(str(part).strip() for part in value))
    return sys.intern(str(value).strip())


def numbers(dataset: Dataset, tag: str) -> tuple[float, ...]:
    """Return a value as numbers; () where it is missing or one of them isn't a finite number."""
    value = dataset.get(tag)
    if value is None or value == "":
        return ()
    parts = value if isinstance(value, pydicom.multival.MultiValue) else [value]
    try:
        found = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        return ()
    return found if all(math.isfinite(number) for number in found) else ()


def read_hu(path: Path) -> NDArray[np.int16]:
    """Decode the pixels of a slice.

    Returns:
        (rows, columns) int16 HU, `PADDING_HU` where the file marks padding. A file without rescale values is taken as
        it is; whether that is HU is for the plausibility check to say.

    Raises:
        ScanError: UNREADABLE, when the pixels are missing, cut short or in an unknown encoding.
    """
    with quiet_pydicom():
        try:
            dataset = pydicom.dcmread(path, force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:  # a bare data set: not compressed
                implicit = dataset.original_encoding[0]
                dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
            raw = dataset.pixel_array
            slope, intercept = (float(dataset.get(tag, default)) for tag, default in RESCALE)
            is_padding = padding_mask(dataset, raw)
        except Exception as error:  # decoders raise anything on damaged data
            detail = f"pixels can't be decoded ({type(error).__name__}, {transfer_syntax(path)})"
            raise ScanError(RejectCode.UNREADABLE, path, detail) from error
    if slope == 1 and intercept.is_integer():
        values = raw.astype(np.int32) + int(intercept)
    else:
        values = np.rint(raw * slope + intercept)
    hu: NDArray[np.int16] = np.clip(values, PADDING_HU + 1, 32767).astype(np.int16)
    if is_padding is not None:
        hu[is_padding] = PADDING_HU
    return hu


RESCALE = (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))


def padding_mask(dataset: Dataset, raw: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return which stored values are padding (PS3.3 C.7.5.1.1.2), None where the file doesn't say.

    The value may have been written with the wrong signedness, so it is read as the pixels' own.
    """
    first = dataset.get("PixelPaddingValue")
    if first is None or isinstance(first, (bytes, str)):
        return None
    last = dataset.get("PixelPaddingRangeLimit")
    signed = bool(dataset.get("PixelRepresentation", 0))
    ends = sorted(as_stored(int(end), signed) for end in (first, first if last is None else last))
    return (raw >= ends[0]) & (raw <= ends[1]) if ends[0] != ends[1] else raw == ends[0]


def as_stored(value: int, signed: bool) -> int:
    """Return a 16-bit value as the pixels' signedness has it: 64036 is -1500 among signed ones."""
    if signed and value > 32767:
        return value - 65536
    return value + 65536 if value < 0 and not signed else value


def transfer_syntax(path: Path) -> str:
    """Return the name of a file's encoding, for messages."""
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
        return str(pydicom.uid.UID(meta.TransferSyntaxUID).name)
    except Exception:  # noqa: BLE001 - the file is damaged already; this only words the message
        return "unknown transfer syntax"


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom's warnings, which quote header values, out of logs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
