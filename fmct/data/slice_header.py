"""What a DICOM file says about one slice, without anything that identifies the patient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fmct.data.elements import Elements, integer, numbers, text
from fmct.data.pixel_source import PixelSource
from fmct.data.privacy import age_years, keyed_id, uid_hash, years_between
from fmct.data.rejection import RejectCode, ScanError

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
        damage: why its pixels can't be used, as `CODE: detail`; "" where nothing of the kind shows in the header.
        pixels: how to decode them without reading the header again, where that was asked for and the file has only one
            image.
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
    damage: str = ""
    pixels: PixelSource | None = field(default=None, repr=False)


class SliceError(ScanError):
    """A slice that can't be used although its header can be read, so that it is known which series it is missing from.

    Args:
        code: the reason.
        detail: what was found.
        header: the slice's.
    """

    def __init__(self, code: RejectCode, detail: str, header: SliceHeader) -> None:
        super().__init__(code, header.path, detail)
        self.header = header

    @property
    def damaged(self) -> SliceHeader:
        """The header, with what is wrong in it."""
        return replace(self.header, damage=f"{self.code.name}: {self.detail}")

    def __reduce__(self) -> tuple[type[SliceError], tuple[RejectCode, str, SliceHeader]]:
        return SliceError, (self.code, self.detail, self.header)


def header_from(dataset: Elements, path: Path, key: bytes) -> SliceHeader:
    """Pick what is needed from a data set; strings that all slices of a series share are kept once."""
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
        image_type=tuple(text(dataset, "ImageType").upper().split("\\")),
        rows=integer(dataset, "Rows"),
        columns=integer(dataset, "Columns"),
        samples=integer(dataset, "SamplesPerPixel", 1),
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
        sex=sex if (sex := text(dataset, "PatientSex").upper()) in {"M", "F", "O"} else "",
        study_description=hashed(keyed_id, "description", text(dataset, "StudyDescription").casefold(), key),
        says_bone=any(word in text(dataset, "SeriesDescription").casefold() for word in BONE_WORDS),
    )


def hashed(function: Callable[..., str], *values: Any) -> str:
    """Return the hash of an identifier, "" where there is none."""
    return function(*values) if all(values) else ""


def age_at_study(dataset: Elements) -> float:
    """Return the age in years: as stated, else from the dates of birth and study; NaN where neither says."""
    stated = age_years(text(dataset, "PatientAge"))
    if not math.isnan(stated):
        return stated
    return years_between(text(dataset, "PatientBirthDate"), text(dataset, "StudyDate"))
