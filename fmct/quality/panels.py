"""One picture of a scan: three planes across, three windows down, as radiologists hold them.

Radiological convention: the patient's right is on the left of the picture, and each picture says so (R, and A on
sagittal planes). The letters are part of the picture, so that they stay when somebody copies it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fmct.evaluation.montage import EDGES
from fmct.quality.statistics import TISSUE_HU, bounding_box
from fmct.quality.windows import WINDOWS_HU, Gray, gray

PANEL_PIXELS = 120
LETTER_PIXELS = 13
WEBP_QUALITY = 60
AXIAL_BELOW_VERTEX_MM = 70.0
"""About the height of the ventricles, where most of what is looked for is to be seen."""


@dataclass(frozen=True)
class Picture:
    """A picture in the page.

    Attributes:
        source: data URI.
        alt: what it shows, in words.
        width: in pixels.
        height: in pixels.
    """

    source: str
    alt: str
    width: int
    height: int

    @classmethod
    def of(cls, image: Image.Image, alt: str) -> Picture:
        """Embed a gray picture as WebP, a tenth of the bytes of a PNG."""
        buffer = io.BytesIO()
        image.convert("L").save(buffer, "webp", quality=WEBP_QUALITY, method=4)
        content = base64.b64encode(buffer.getvalue()).decode("ascii")
        return cls(f"data:image/webp;base64,{content}", alt, *image.size)


def scan_picture(hu: NDArray[np.int16], spacing_mm: float, scan_id: str) -> Picture:
    """Draw a scan: axial, coronal and sagittal from left to right; brain, subdural and bone window downward.

    Args:
        hu: (Z, Y, X) HU, indices increasing toward superior, anterior, right.
        spacing_mm: distance of voxel centers.
        scan_id: for the description.
    """
    planes = slices_through_head(hu, spacing_mm)
    zoom = PANEL_PIXELS / max(hu.shape)
    rows = []
    for level, width in WINDOWS_HU.values():
        row = []
        for view, plane in planes.items():
            left, _, top = EDGES[view]
            row.append(panel(gray(plane, level, width), zoom))
            letters(row[-1], left, top)
        rows.append(row)
    alt = f"Axial, coronal and sagittal plane of scan {scan_id} in the brain, subdural and bone window"
    return Picture.of(sheet(rows), alt)


def slices_through_head(hu: NDArray[np.int16], spacing_mm: float) -> dict[str, NDArray[np.int16]]:
    """Return an axial plane at the height of the ventricles, and the middle coronal and sagittal plane of the head.

    Args:
        hu: (Z, Y, X), indices increasing toward superior, anterior, right.
        spacing_mm: distance of voxel centers.

    Returns:
        axial (Y, X), anterior up and the patient's right on the left; coronal (Z, X), superior up and right on the
        left; sagittal (Z, Y), superior up and anterior on the left. Where there is no tissue, the volume's middle; a
        head less than twice as high as the axial plane lies below the vertex is cut through its middle.
    """
    tissue = hu > TISSUE_HU
    box = bounding_box(hu, tissue, spacing_mm) if tissue.any() else tuple((0, length) for length in hu.shape)
    z, y, x = ((low + high) // 2 for low, high in box)
    z = max(z, box[0][1] - 1 - round(AXIAL_BELOW_VERTEX_MM / spacing_mm))
    return {"axial": hu[z, ::-1, ::-1], "coronal": hu[::-1, y, ::-1], "sagittal": hu[::-1, ::-1, x]}


def panel(pixels: Gray, zoom: float | tuple[float, float]) -> Image.Image:
    """Return a plane in the middle of a black square of `PANEL_PIXELS`.

    Args:
        pixels: (rows, columns).
        zoom: picture pixels per pixel, or those downward and rightward.
    """
    down, across = zoom if isinstance(zoom, tuple) else (zoom, zoom)
    size = (max(round(pixels.shape[1] * across), 1), max(round(pixels.shape[0] * down), 1))
    drawn = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BILINEAR)
    square = Image.new("L", (PANEL_PIXELS, PANEL_PIXELS))
    square.paste(drawn, ((PANEL_PIXELS - size[0]) // 2, (PANEL_PIXELS - size[1]) // 2))
    return square


def sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Put square pictures together: the first row on top."""
    whole = Image.new("L", (max(len(row) for row in rows) * PANEL_PIXELS, len(rows) * PANEL_PIXELS))
    for down, row in enumerate(rows):
        for across, square in enumerate(row):
            whole.paste(square, (across * PANEL_PIXELS, down * PANEL_PIXELS))
    return whole


def letters(square: Image.Image, left: str, top: str = "") -> None:
    """Write into a picture what is on its left and, as far as it is said, at its top."""
    draw = ImageDraw.Draw(square)
    font = ImageFont.load_default(LETTER_PIXELS)
    places = (((3, PANEL_PIXELS / 2), left, "lm"), ((PANEL_PIXELS / 2, 1), top, "mt"))
    for place, letter, anchor in places:
        draw.text(place, letter, fill=255, font=font, anchor=anchor, stroke_width=2, stroke_fill=0)
