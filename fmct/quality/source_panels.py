"""The middle of a scan as it lies on disk, DICOM slice or NIfTI file, drawn whether or not it is a usable head CT.

In true proportions, as radiologists hold it, with letters where the header says how it lies and none where it doesn't.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from PIL.Image import Image

from fmct.data.dicom import SliceHeader, read_hu
from fmct.data.geometry import LPS_TO_RAS
from fmct.data.plausibility import implausible_hu
from fmct.quality.panels import PANEL_PIXELS, letters, panel
from fmct.quality.windows import SOFT_TISSUE_HU, Gray, full_range, gray

LARGEST_BYTES = 1 << 30
X, Y, Z = range(3)
CUTS, REMAINING = (Z, Y, X), ((Y, X), (Z, X), (Z, Y))
"""Across which axis a plane cuts (axial, coronal, sagittal), and which axes run down and across it."""
ALONG = 0.7
"""Direction cosine from which on an axis of the picture is called after an axis of the body."""


class NoPictureError(Exception):
    """There is no picture, and why, in a few words."""


def middle_slice(headers: list[SliceHeader]) -> SliceHeader:
    """Return the slice in the middle along the normal, or by name where positions are missing."""
    across, down = np.reshape(headers[0].orientation_lps, (2, 3)) if len(headers[0].orientation_lps) == 6 else (0, 0)
    normal = np.cross(across, down) if np.ndim(across) else np.zeros(3)
    if all(len(header.position_lps_mm) == 3 for header in headers) and normal.any():
        ordered = sorted(headers, key=lambda header: (float(np.dot(header.position_lps_mm, normal)), str(header.path)))
    else:
        ordered = sorted(headers, key=lambda header: (str(header.path), header.frame))
    return ordered[len(ordered) // 2]


def slice_panel(header: SliceHeader, is_hu: bool) -> Image:
    """Return a DICOM slice as a square picture, with letters where its header says how it lies.

    Args:
        header: of the slice.
        is_hu: whether its values may be HU.
    """
    hu: NDArray[Any] = read_hu(header.path, header.frame)
    if hu.ndim > 2:
        raise NoPictureError("no gray slice")
    spacing = header.pixel_spacing_mm if len(header.pixel_spacing_mm) == 2 else (1.0, 1.0)
    pixels, left, top = upright(shown([hu], is_hu)[0], header.orientation_lps)
    square = fitted(pixels, spacing)
    letters(square, left, top)
    return square


def shown(planes: Sequence[NDArray[Any]], is_hu: bool) -> list[Gray]:
    """Return gray values: the soft tissue window where values can be HU (`is_hu`, and plausible), else stretched."""
    finite = [np.where(np.isfinite(plane), plane, 0) for plane in planes]
    everything = np.concatenate([plane.ravel() for plane in finite])
    as_hu = np.clip(np.rint(everything), -32767, 32767).astype(np.int16)
    if is_hu and implausible_hu(as_hu[None, None]) is None:
        return [gray(plane, *SOFT_TISSUE_HU) for plane in finite]
    return [gray(plane, *full_range(everything)) for plane in finite]


def upright(pixels: Gray, orientation_lps: tuple[float, ...]) -> tuple[Gray, str, str]:
    """Turn a slice as radiologists hold it, and return what is on its left and at its top ("" where unclear).

    Args:
        pixels: (rows, columns).
        orientation_lps: directions along a row and down a column, six numbers; anything else leaves it as it is.
    """
    if len(orientation_lps) != 6:
        return pixels, "", ""
    across, down = np.reshape(orientation_lps, (2, 3)) * LPS_TO_RAS
    if across[0] > ALONG or across[1] > ALONG:  # columns run to the patient's right, or forward
        pixels, across = pixels[:, ::-1], -across
    if down[2] > ALONG or down[1] > ALONG:  # rows run upward, or forward
        pixels, down = pixels[::-1], -down
    left = "R" if across[0] < -ALONG else "A" if across[1] < -ALONG else ""
    top = "S" if down[2] < -ALONG else "A" if down[1] < -ALONG else ""
    return pixels, left, top


def fitted(pixels: Gray, spacing_mm: tuple[float, ...]) -> Image:
    """Return pixels in a square picture in true proportions; `spacing_mm` is between rows and between columns."""
    longest_mm = max(pixels.shape[0] * spacing_mm[0], pixels.shape[1] * spacing_mm[1])
    return panel(pixels, (PANEL_PIXELS * spacing_mm[0] / longest_mm, PANEL_PIXELS * spacing_mm[1] / longest_mm))


def nifti_panels(path: Path, is_hu: bool) -> list[Image]:
    """Return the middle axial, coronal and sagittal plane of a NIfTI file; of one without orientation, as stored.

    Args:
        path: the file.
        is_hu: whether its values may be HU.

    Raises:
        NoPictureError: when it is no gray volume, or too large.
    """
    image: Any = nib.load(path)
    shape = image.shape[:3]
    if len(shape) != 3 or image.get_data_dtype().kind not in "iuf":
        raise NoPictureError("no gray volume")
    if np.prod(image.shape, dtype=float) * image.get_data_dtype().itemsize > LARGEST_BYTES or 0 in image.shape:
        raise NoPictureError("too large to be read, or empty")
    first = (0,) * (len(image.shape) - 3)
    orientation = io_orientation(image.affine) if np.isfinite(image.affine).all() else np.full((3, 2), np.nan)
    is_known = bool(np.isfinite(orientation).all()) and image.header["sform_code"] + image.header["qform_code"] > 0
    zooms = np.array([float(zoom) if 0 < zoom < np.inf else 1.0 for zoom in image.header.get_zooms()[:3]])
    if not is_known:
        middle = np.asarray(image.dataobj[(slice(None), slice(None), shape[2] // 2, *first)])
        return [fitted(shown([middle], is_hu)[0].T, (float(zooms[1]), float(zooms[0])))]
    to_lps = ornt_transform(orientation, axcodes2ornt(("L", "P", "S")))
    axis_of = {int(to_lps[stored, 0]): stored for stored in range(3)}  # x, y, z -> stored axis
    planes, steps = [], []
    for cut, (down, across) in zip(CUTS, REMAINING, strict=True):
        index: list[Any] = [slice(None)] * 3
        middle = shape[axis_of[cut]] // 2
        index[axis_of[cut]] = slice(middle, middle + 1)
        thin = apply_orientation(np.asarray(image.dataobj[(*index, *first)]), to_lps)  # (x, y, z), one voxel thick
        plane = np.moveaxis(thin, (cut, down, across), (0, 1, 2))[0]
        planes.append(plane[::-1] if down == Z else plane)
        steps.append((float(zooms[axis_of[down]]), float(zooms[axis_of[across]])))
    squares = [fitted(pixels, step) for pixels, step in zip(shown(planes, is_hu), steps, strict=True)]
    for square, (left, top) in zip(squares, (("R", "A"), ("R", "S"), ("A", "S")), strict=True):
        letters(square, left, top)
    return squares
