"""From a DICOM file that was parsed to the HU of its images."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmct.data.bounded_readers import BoundedReader
from fmct.data.dicom_file import DicomFile, quiet_pydicom
from fmct.data.elements import Elements, RawElements, integer, tag_of
from fmct.data.encodings import NATIVE, PixelLayout
from fmct.data.enhanced import FunctionalGroups, rescale
from fmct.data.frames import stored_frame
from fmct.data.pixel_source import PixelSource
from fmct.data.stored_values import as_stored, padding_mask, to_hu

MISSING = 1 << 40
"""No 16-bit value."""
Ends = tuple[float, float]


def decoded(
    file: DicomFile,
    layout: PixelLayout,
    path: Path,
    frame: int,
    padding: Ends | None,
    slope: float,
    intercept: float,
    out: NDArray[np.int16] | None = None,
) -> NDArray[np.int16]:
    """Return the HU (rows, columns) of a frame; arguments as `PixelSource` and `to_hu` have them.

    Raises:
        ScanError: as `stored_frame` does.
        NoHUError: when values can't be turned into HU.
        Exception: whatever the decoders raise on damaged data.
    """
    values, whole = stored_frame(file, layout, path, frame)
    mask = padding_mask(values, whole, padding, slope, intercept) if padding else None
    return to_hu(values, mask, slope, intercept, out)


def source_of(file: DicomFile, layout: PixelLayout) -> PixelSource | None:
    """Return how to decode the only image of a parsed file later; None where that takes more than can be kept."""
    if layout.frames != 1 or file.size is None or file.pixels is None:
        return None
    try:
        slope, intercept = rescale(file.dataset, FunctionalGroups(file.dataset), 0)
    except ValueError:  # is told when the pixels are read
        return None
    padding = padding_ends(file, layout)
    return PixelSource(file.pixels, file.syntax, layout, padding, slope, intercept, file.size, file.changed_ns)


def decoded_from(source: PixelSource, path: Path, out: NDArray[np.int16] | None) -> NDArray[np.int16] | None:
    """Return the HU (rows, columns) of a file whose header was read before; None where the file has changed since.

    Args:
        source: kept of the header.
        path: the file.
        out: where the HU may be put, if it has their shape.

    Raises:
        Exception: as `decoded` does.
    """
    with path.open("rb", buffering=0) as raw:
        status = os.fstat(raw.fileno())
        if (status.st_size, status.st_mtime_ns) != (source.size, source.changed_ns):
            return None
        stream = BoundedReader(raw, source.size)
        file = DicomFile(RawElements(), source.syntax, "", source.element, stream, source.size, source.changed_ns)
        fitting = out if out is not None and out.shape == (source.layout.rows, source.layout.columns) else None
        with nullcontext() if source.syntax in NATIVE else quiet_pydicom():
            return decoded(file, source.layout, path, 0, source.padding, source.slope, source.intercept, fitting)


def padding_ends(file: DicomFile, layout: PixelLayout) -> Ends | None:
    """Return the first and the last stored value that mean padding, None where the file doesn't say.

    A value that isn't one number says nothing. Of several values the first counts.
    """
    kind = file.pixels.keyword.removesuffix("PixelData") if file.pixels else ""
    ends = [
        padding_value(file.dataset, f"{kind}{name}", layout) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")
    ]
    if ends[0] is None:
        return None
    return ends[0], ends[0] if ends[1] is None else ends[1]


def padding_value(dataset: Elements, keyword: str, layout: PixelLayout) -> float | None:
    """Return a padding value as the pixels have it, None where there is none."""
    try:
        if keyword.startswith("Pixel"):
            found = integer(dataset, keyword, MISSING)
            return None if found == MISSING else as_stored(found, layout.bits_allocated, layout.signed)
        value = dataset.get(tag_of(keyword))
        return None if value is None or value.value is None else float(value.value)
    except (TypeError, ValueError):
        return None
