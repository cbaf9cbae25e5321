"""A usable scan on disk: where its files are, what is known of it, and how to read it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fmct.data.dicom import SliceHeader, read_frames_hu
from fmct.data.geometry import LPS_TO_RAS, SliceStack, gantry_tilt_deg, stack_from_affine
from fmct.data.nifti import content_id, load_nifti, open_nifti, stem
from fmct.data.privacy import uid_hash
from fmct.data.rejection import RejectCode, ScanError
from fmct.data.series_rules import slice_normal_lps

Facts = dict[str, str | int | float]


@dataclass(frozen=True)
class Scan:
    """One usable scan on disk.

    Attributes:
        scan_id: 16 hex digits, of the series' UID and orientation for DICOM, of the content for NIfTI: the same
            wherever the files lie.
        path: the file, or the folder that holds all slices.
        format: "dicom" or "nifti".
        facts: what the manifest's columns from `series_id` to `sex` say, as far as known.
        patient: keyed hash of the patient's identifier; of NIfTI files, what stands for it, in the clear.
        study: keyed hash of the study's UID, "" where there is none.
        slices: headers of the slices in order along the normal; none for NIfTI.
    """

    scan_id: str
    path: Path
    format: str
    facts: Facts = field(repr=False)
    patient: str = field(repr=False)
    study: str = field(repr=False)
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
    facts: Facts = {
        "series_id": first.series_id,
        "n_slices": len(slices),
        "spacing_x_mm": first.pixel_spacing_mm[1],
        "spacing_y_mm": first.pixel_spacing_mm[0],
        "spacing_z_mm": round(float(np.median(gaps)), 4),
        "slice_gap_max_mm": round(float(gaps.max()), 4),
        "gantry_tilt_deg": round(gantry_tilt_deg(origins, normal), 2),
        "manufacturer": first.manufacturer,
        "model": first.model,
        "kernel": first.kernel,
        "kvp": first.kvp,
        "contrast": int(any(header.contrast for header in slices)),
        "age": first.age,
        "sex": first.sex if first.sex in {"M", "F", "O"} else "",
    }
    return Scan(
        scan_id=scan_id_of(slices),
        path=common_folder([header.path for header in slices]),
        format="dicom",
        facts=facts,
        patient=first.patient_id or first.study_id,
        study=first.study_id,
        slices=tuple(slices),
    )


def scan_id_of(slices: Sequence[SliceHeader]) -> str:
    """Return 16 hex digits that tell slices of one orientation by their series, wherever the files lie.

    Without a series UID the images' UIDs stand for it, and without those their sizes and places.
    """
    first = slices[0]
    orientation = (np.round(first.orientation_lps, 2) + 0.0).tolist()
    sop_ids = sorted(header.sop_id for header in slices)
    places = sorted((header.rows, header.columns, *header.position_lps_mm) for header in slices)
    return uid_hash(f"{first.series_id or (sop_ids if sop_ids[0] else places)} {orientation}")


def stack_from_slices(slices: Sequence[SliceHeader]) -> SliceStack:
    """Read the pixels of a series, and turn its geometry into RAS.

    Args:
        slices: at least two, of one orientation and size, in order along the normal.

    Raises:
        ScanError: naming the file, when one can't be decoded or has another size than its header says.
    """
    first = slices[0]
    hu = np.empty((len(slices), first.rows, first.columns), np.int16)
    places: dict[Path, list[int]] = {}
    for k, header in enumerate(slices):
        places.setdefault(header.path, []).append(k)
    for path, numbers in places.items():  # a multi-frame file holds many slices, and is opened once
        frames = read_frames_hu(path, [slices[k].frame for k in numbers])
        for k, pixels in zip(numbers, frames, strict=True):
            if pixels.shape != hu.shape[1:]:
                raise ScanError(RejectCode.UNREADABLE, path, f"pixels {pixels.shape}, header says {hu.shape[1:]}")
            hu[k] = pixels
    across, down = np.reshape(first.orientation_lps, (2, 3))
    return SliceStack(
        hu,
        np.array([header.position_lps_mm for header in slices]) * LPS_TO_RAS,
        down / np.linalg.norm(down) * first.pixel_spacing_mm[0] * LPS_TO_RAS,
        across / np.linalg.norm(across) * first.pixel_spacing_mm[1] * LPS_TO_RAS,
    )


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
    return Scan(content_id(path), path, "nifti", facts, patient=stem(path), study="")


def common_folder(paths: Sequence[Path]) -> Path:
    """Return the deepest folder that holds all files."""
    return Path(os.path.commonpath([path.parent for path in paths]))
