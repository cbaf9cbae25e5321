"""A usable scan on disk: where its files are, what is known of it, and how to read it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fmct.data.dicom import SliceHeader, read_frames_hu, read_slice_hu
from fmct.data.geometry import LPS_TO_RAS, SliceStack, Vectors, gantry_tilt_deg, stack_from_affine
from fmct.data.nifti import content_id, load_nifti, open_nifti, stem
from fmct.data.privacy import uid_hash
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.series_rules import Extent, slice_normal_lps

Facts = dict[str, str | int | float]


@dataclass(frozen=True)
class Scan:
    """One usable scan on disk.

    Attributes:
        scan_id: 16 hex digits, of the UIDs of series and images and the orientation for DICOM, of the content for
            NIfTI: the same wherever the files lie.
        path: the file, or the folder that holds all slices.
        format: "dicom" or "nifti".
        facts: what the manifest's columns from `series_id` to `sex` say, as far as known.
        patient: keyed hash of the patient's identifier; of NIfTI files, what stands for it, in the clear.
        study: keyed hash of the study's UID, "" where there is none.
        extent_mm: what it covers, see `Extent`.
        slices: headers of the slices in order along the normal; none for NIfTI.
    """

    scan_id: str
    path: Path
    format: str
    facts: Facts = field(repr=False)
    patient: str = field(repr=False)
    study: str = field(repr=False)
    extent_mm: Extent
    slices: tuple[SliceHeader, ...] = field(repr=False, default=())

    def load(self) -> SliceStack:
        """Read the pixels.

        Raises:
            ScanError: naming the file, when it can't be read or has values that aren't finite.
        """
        return stack_from_slices(self.slices) if self.slices else load_nifti(self.path)


def scan_from_slices(slices: Sequence[SliceHeader]) -> Scan:
    """Describe a usable series: its geometry from positions, the rest from the first slice's header.

    Args:
        slices: at least two, of one orientation, in order along the normal.
    """
    first = slices[0]
    origins = np.array([header.position_lps_mm for header in slices])
    normal = slice_normal_lps(first)
    gaps = np.diff(origins @ normal)
    row_mm, column_mm = first.pixel_spacing_mm
    size_x_mm, size_y_mm = first.columns * column_mm, first.rows * row_mm
    if lies_on_its_side(first):
        row_mm, column_mm, size_x_mm, size_y_mm = column_mm, row_mm, size_y_mm, size_x_mm
    facts: Facts = {
        "series_id": "+".join(dict.fromkeys(header.series_id for header in slices)),
        "n_slices": len(slices),
        "spacing_x_mm": column_mm,
        "spacing_y_mm": row_mm,
        "spacing_z_mm": round(float(np.median(gaps)), 4),
        "slice_gap_max_mm": round(float(gaps.max()), 4),
        "gantry_tilt_deg": round(gantry_tilt_deg(origins_of_longest_part(slices), normal), 2),
        "manufacturer": first.manufacturer,
        "model": first.model,
        "kernel": first.kernel,
        "kvp": first.kvp,
        "contrast": int(any(header.contrast for header in slices)),
        "age": first.age,
        "sex": first.sex,
    }
    return Scan(
        scan_id=scan_id_of(slices),
        path=common_folder([header.path for header in slices]),
        format="dicom",
        facts=facts,
        patient=first.patient_id or first.study_id,
        study=first.study_id,
        extent_mm=(size_x_mm, size_y_mm, float(gaps.sum() + (gaps[0] + gaps[-1]) / 2)),
        slices=tuple(slices),
    )


def lies_on_its_side(header: SliceHeader) -> bool:
    """Tell whether rows, not columns, follow each other along x: the same picture, turned when it was stored."""
    across, down = np.reshape(header.orientation_lps, (2, 3))
    return bool(abs(down[0]) > abs(across[0]))


def origins_of_longest_part(slices: Sequence[SliceHeader]) -> Vectors:
    """Return the positions (K, 3) of the slices of one series: in a joined head, the other may lie beside it."""
    ((longest, _),) = Counter(header.series_id for header in slices).most_common(1)
    return np.array([header.position_lps_mm for header in slices if header.series_id == longest])


def scan_id_of(slices: Sequence[SliceHeader]) -> str:
    """Return 16 hex digits that tell slices of one orientation by their series and images, wherever the files lie.

    The UIDs of the images count because those of series aren't to be relied on (anonymized archives have the same one
    in many studies), and because a series to which slices came is another scan. Where images have no UIDs, their places
    and the pixels of the one in the middle stand for them.
    """
    series = "+".join(dict.fromkeys(header.series_id for header in slices))
    orientation = (np.round(slices[0].orientation_lps, 2) + 0.0).tolist()
    images: Sequence[object] = sorted({(header.sop_id, header.frame) for header in slices})
    if len(images) < len(slices) or not all(header.sop_id for header in slices):
        places = sorted((header.rows, header.columns, *header.position_lps_mm) for header in slices)
        images = [*places, pixels_hash(slices[len(slices) // 2])]
    return uid_hash(f"{series} {images} {orientation}")


def pixels_hash(header: SliceHeader) -> str:
    """Return a text that tells an image by its pixels, however they are compressed; "" where they can't be read."""
    try:
        return hashlib.sha256(read_slice_hu(header).tobytes()).hexdigest()
    except ScanError:
        return ""


def stack_from_slices(slices: Sequence[SliceHeader]) -> SliceStack:
    """Read the pixels of a series, and turn its geometry into RAS; columns are what runs more along x.

    Args:
        slices: at least two, of one orientation and size, in order along the normal.

    Raises:
        ScanError: naming the file, when one can't be decoded or has another size than its header says.
    """
    first = slices[0]
    shape = (first.rows, first.columns)
    hu = np.empty((0, *shape), np.int16)
    places: dict[Path, list[int]] = {}
    for k, header in enumerate(slices):
        places.setdefault(header.path, []).append(k)
    for path, numbers in places.items():  # a multi-frame file holds many slices, and is opened once
        if len(numbers) == 1:
            (k,) = numbers
            frames = iter([read_slice_hu(slices[k], hu[k] if len(hu) else None)])
        else:
            frames = read_frames_hu(path, [slices[k].frame for k in numbers])
        for k, pixels in zip(numbers, frames, strict=True):
            if pixels.shape != shape:
                raise ScanError(RejectCode.UNREADABLE, path, f"pixels {pixels.shape}, header says {shape}")
            if not len(hu):  # not before the first image has shown that its header doesn't make up its size
                hu = np.empty((len(slices), *shape), np.int16)
            if not np.may_share_memory(pixels, hu):
                hu[k] = pixels
    across, down = np.reshape(first.orientation_lps, (2, 3))
    row_step = down / np.linalg.norm(down) * first.pixel_spacing_mm[0] * LPS_TO_RAS
    column_step = across / np.linalg.norm(across) * first.pixel_spacing_mm[1] * LPS_TO_RAS
    if lies_on_its_side(first):
        hu, row_step, column_step = hu.transpose(0, 2, 1), column_step, row_step
    origins = np.array([header.position_lps_mm for header in slices]) * LPS_TO_RAS
    return SliceStack(hu, origins, row_step, column_step)


def scan_from_nifti(path: Path) -> Scan:
    """Describe a NIfTI file by its header; the file's stem stands for the patient.

    Raises:
        ScanError: when it is unreadable or can't hold a scan.
    """
    image = open_nifti(path)
    stack = stack_from_affine(np.broadcast_to(np.int16(0), image.shape[:3]), image.affine)
    row_mm, column_mm = stack.pixel_mm
    facts: Facts = {
        "n_slices": len(stack.hu),
        "spacing_x_mm": round(column_mm, 6),
        "spacing_y_mm": round(row_mm, 6),
        "spacing_z_mm": round(float(np.median(stack.gaps_mm)), 4),
        "slice_gap_max_mm": round(float(stack.gaps_mm.max()), 4),
        "gantry_tilt_deg": round(gantry_tilt_deg(stack.origins_ras_mm, stack.normal_ras), 2),
    }
    _, rows, columns = stack.hu.shape
    gaps = stack.gaps_mm
    extent_mm = (columns * column_mm, rows * row_mm, float(gaps.sum() + (gaps[0] + gaps[-1]) / 2))
    return Scan(content_id(path), path, "nifti", facts, patient=stem(path), study="", extent_mm=extent_mm)


def common_folder(paths: Sequence[Path]) -> Path:
    """Return the deepest folder that holds all files."""
    return Path(os.path.commonpath([path.parent for path in paths]))
