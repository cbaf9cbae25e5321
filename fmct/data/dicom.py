"""DICOM files: the headers of the slices in one, and their pixels in HU.

pydicom decodes, and parses what `header_scan` leaves to it; what the values mean is decided here and in the modules
beside this: `dicom_file` (parsing within bounds), `elements` (values), `slice_header`, `encodings` (what is refused by
the header), `enhanced` (files of many frames), `frames` (decoding), `stored_values` and `hu_decoding` (HU).

Nothing that identifies a patient leaves this file: identifiers are hashed as they are read, and values that pydicom
complains about aren't shown, for such warnings quote the header.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from fmct.data.dicom_file import DicomFile, TooMuchError, open_dicom, quiet_pydicom
from fmct.data.elements import integer, text
from fmct.data.encodings import pixel_layout, syntax_name
from fmct.data.enhanced import FunctionalGroups, frame_headers, rescale
from fmct.data.header_scan import Wanted
from fmct.data.hu_decoding import decoded, decoded_from, padding_ends, source_of
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.slice_header import SliceError as SliceError
from fmct.data.slice_header import SliceHeader as SliceHeader
from fmct.data.slice_header import header_from
from fmct.data.stored_values import NoHUError

INDEX_OBJECT_UID = "1.2.840.10008.1.3.10"
SECONDARY_CAPTURE_UID = "1.2.840.10008.5.1.4.1.1.7"
ENHANCED_CT = {EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
PIXEL_KEYWORDS = [
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "FloatPixelPaddingValue",
    "FloatPixelPaddingRangeLimit", "DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit",
    "RescaleIntercept", "RescaleSlope", "RescaleType", "ModalityLUTSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "Modality",
]  # fmt: skip
HEADER_KEYWORDS = [
    *PIXEL_KEYWORDS, "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "ImageType", "PatientID",
    "PatientAge", "PatientBirthDate", "StudyDate", "PatientSex", "Manufacturer", "ManufacturerModelName",
    "ConvolutionKernel", "KVP", "ContrastBolusAgent", "ContrastBolusAgentSequence", "StudyDescription",
    "SeriesDescription", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID",
]  # fmt: skip
PIXEL_ELEMENTS, HEADER_ELEMENTS = Wanted.of(PIXEL_KEYWORDS), Wanted.of(HEADER_KEYWORDS)
UNSHARED_KEY = secrets.token_bytes(32)


def has_prefix(path: Path) -> bool | None:
    """Tell DICOM files by their first bytes: True with the DICM prefix, False for a bare data set, None for neither.

    Some old archives hold files without preamble; those begin with an element of group 2 or 8, in little endian.
    """
    with path.open("rb", buffering=0) as file:
        start = file.read(132) or b""
    if start[128:] == b"DICM":
        return True
    return False if len(start) == 132 and start[:2] in {b"\x02\0", b"\x08\0"} and start[3] == 0 else None


def read_headers(
    path: Path, prefixed: bool = True, key: bytes = UNSHARED_KEY, pixels: bool = False
) -> list[SliceHeader]:
    """Read the headers of the slices in a file that looks like DICOM, without reading pixels.

    What could be a CT slice is also checked for what would keep its pixels from being read (see `pixel_layout`).

    Args:
        path: the file.
        prefixed: whether it has the DICM prefix; without, what can't be parsed is taken for no DICOM file at all.
        key: the secret of the hashes; without it, identifiers hold within this process only.
        pixels: whether to keep how to decode them, for reading them soon after.

    Returns:
        One header for each slice: several for a multi-frame file whose frames have places; none for an object that is
        no image of a series (DICOMDIR and the like).

    Raises:
        ScanError: UNREADABLE when it is damaged or cut short, UNSUPPORTED, TOO_LARGE or IMPLAUSIBLE_HU for CT images
            that can't be decoded, claim absurd sizes, or hold something else than HU; a `SliceError` with the header
            where that can be read, for its series lacks a slice then.
    """
    try:
        with quiet_pydicom(), open_dicom(path, HEADER_ELEMENTS) as file:
            return headers_in(file, path, prefixed, key, pixels)
    except ScanError:
        raise
    except TooMuchError as error:
        raise ScanError(RejectCode.TOO_LARGE, path, str(error)) from error
    except Exception as error:  # a damaged header can break pydicom in any way
        if isinstance(error, OSError) and error.errno is not None:  # the disk's fault; pydicom's own have no number
            raise ScanError(RejectCode.UNREADABLE, path, f"can't be read ({error.strerror})") from error
        if not prefixed:
            return []
        raise ScanError(RejectCode.UNREADABLE, path, f"header can't be parsed ({type(error).__name__})") from error


def headers_in(file: DicomFile, path: Path, prefixed: bool, key: bytes, pixels: bool) -> list[SliceHeader]:
    """Return the headers of a parsed file; arguments as of `read_headers`.

    Raises:
        ScanError: as `read_headers` does.
        Exception: whatever damaged values raise.
    """
    dataset = file.dataset
    modality = text(dataset, "Modality")
    if file.media_class == INDEX_OBJECT_UID or not (prefixed or modality):
        return []
    header = header_from(dataset, path, key)
    if not (modality or header.sop_class or header.series_id or header.rows):
        raise ScanError(
            RejectCode.UNREADABLE, path, "header is cut short: it names neither modality nor image nor series"
        )
    if not may_be_slice(header):
        return [header]
    try:
        layout = pixel_layout(file, path)
    except ScanError as error:
        raise SliceError(error.code, error.detail, header) from error
    if layout.frames == 1 and header.sop_class not in ENHANCED_CT:
        return [replace(header, pixels=source_of(file, layout)) if pixels else header]
    try:
        return frame_headers(header, dataset, layout.frames, text(dataset, "SOPInstanceUID"))
    except ValueError as error:
        raise SliceError(RejectCode.UNREADABLE, f"multi-frame header: {error}", header) from error


def may_be_slice(header: SliceHeader) -> bool:
    """Tell whether a file could hold slices of a scan; of others nobody needs to know whether pixels can be read."""
    if header.modality != "CT" or header.samples > 1 or header.sop_class.startswith(SECONDARY_CAPTURE_UID):
        return False
    return (
        bool(header.rows) or header.sop_class in {CTImageStorage, *ENHANCED_CT}
    ) and "LOCALIZER" not in header.image_type


def read_hu(path: Path, frame: int = 0) -> NDArray[np.int16]:
    """Decode the pixels of a slice.

    Args:
        path: the file.
        frame: the slice's number in a file of many frames, from 0.

    Returns:
        (rows, columns) int16 HU, `PADDING_HU` where the file marks padding. A file without rescale values is taken as
        it is; whether that is HU is for the plausibility check to say.

    Raises:
        ScanError: UNREADABLE when the pixels are missing, cut short or damaged, UNSUPPORTED in an unknown encoding,
            TOO_LARGE for absurd sizes, SECONDARY for colors, IMPLAUSIBLE_HU for what isn't HU.
    """
    return next(read_frames_hu(path, [frame]))


def read_slice_hu(header: SliceHeader, out: NDArray[np.int16] | None = None) -> NDArray[np.int16]:
    """Decode the pixels of a slice whose header is known, as `read_hu`; the header isn't read again if it needn't be.

    Args:
        header: the slice's.
        out: where the HU may be put, to spare a copy; they need not be, so what is returned counts.

    Raises:
        ScanError: as `read_hu` does.
    """
    source = header.pixels
    if source is not None:
        with telling_errors(header.path, source.syntax):
            hu = decoded_from(source, header.path, out)
        if hu is not None:
            return hu
    return read_hu(header.path, header.frame)


def read_frames_hu(path: Path, frames: Sequence[int]) -> Iterator[NDArray[np.int16]]:
    """Decode several slices of one file, which is opened and parsed once.

    Args:
        path: the file.
        frames: the slices' numbers, from 0.

    Yields:
        (rows, columns) int16 HU of each frame, as `read_hu` returns it.

    Raises:
        ScanError: as `read_hu` does.
    """
    with telling_errors(path), open_dicom(path, PIXEL_ELEMENTS) as file, telling_errors(path, file.syntax):
        with quiet_pydicom():
            if integer(file.dataset, "SamplesPerPixel", 1) != 1:
                raise ScanError(RejectCode.SECONDARY, path, "several samples per pixel: values are colors")
            layout = pixel_layout(file, path)
            groups = FunctionalGroups(file.dataset)
            padding = padding_ends(file, layout)
        for frame in frames:
            with quiet_pydicom():
                hu = decoded(file, layout, path, frame, padding, *rescale(file.dataset, groups, frame))
            yield hu


@contextmanager
def telling_errors(path: Path, syntax: str | None = None) -> Iterator[None]:
    """Turn whatever reading and decoding pixels raises into what it means.

    Raises:
        ScanError: as `read_hu` does.
    """
    try:
        yield
    except ScanError:
        raise
    except TooMuchError as error:
        raise ScanError(RejectCode.TOO_LARGE, path, str(error)) from error
    except NoHUError as error:
        raise ScanError(RejectCode.IMPLAUSIBLE_HU, path, str(error)) from error
    except Exception as error:  # decoders raise anything on damaged data
        encoding = "unknown transfer syntax" if syntax is None else syntax_name(syntax)
        detail = f"pixels can't be decoded ({type(error).__name__}, {encoding})"
        raise ScanError(RejectCode.UNREADABLE, path, detail) from error
