"""What has to be known of a DICOM file to decode its only image, kept so that its header is read once."""

from __future__ import annotations

from dataclasses import dataclass

from fmct.data.dicom_file import PixelElement
from fmct.data.encodings import PixelLayout


@dataclass(frozen=True, slots=True)
class PixelSource:
    """How to get at the pixels of a file.

    Attributes:
        element: where they are.
        syntax: UID of the transfer syntax.
        layout: how they lie there.
        padding: the first and the last stored value that mean padding, None where the file doesn't say.
        slope: from stored values to HU.
        intercept: likewise.
        size: of the file, bytes.
        changed_ns: when it was changed last.
    """

    element: PixelElement
    syntax: str
    layout: PixelLayout
    padding: tuple[float, float] | None
    slope: float
    intercept: float
    size: int
    changed_ns: int
