"""Slice headers without files, for the rules that look at nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_series import AXIAL

from fmct.data.dicom import SliceHeader

USUAL: dict[str, Any] = {
    "path": Path("/in/series/slice"),
    "sop_class": "1.2.840.10008.5.1.4.1.1.2",
    "study_id": "study",
    "series_id": "series",
    "patient_id": "patient",
    "frame_of_reference": "frame",
    "modality": "CT",
    "image_type": ("ORIGINAL", "PRIMARY", "AXIAL"),
    "rows": 512,
    "columns": 512,
    "samples": 1,
    "photometric": "MONOCHROME2",
    "pixel_spacing_mm": (0.45, 0.45),
    "position_lps_mm": (-115.0, -115.0, 0.0),
    "orientation_lps": AXIAL,
    "kernel": "H31s",
    "kvp": 120.0,
    "age": 58.0,
}
EMPTY = {"str": "", "int": 0, "bool": False, "float": float("nan")}


def slice_header(**changes: Any) -> SliceHeader:
    """Return the header of an ordinary slice of a head, but for some fields."""
    empty = {field.name: EMPTY.get(str(field.type)) for field in fields(SliceHeader)}
    return SliceHeader(**{**empty, **USUAL, **changes})


def stack_at(z_mm: Sequence[float] | np.ndarray, shift_mm: float = 0.0, **changes: Any) -> list[SliceHeader]:
    """Return slices at some heights; `shift_mm` moves them to the patient's left."""
    series = str(changes.get("series_id", "series"))
    return [
        slice_header(
            sop_id=f"{series} {number}",
            path=Path(f"/in/{series}/{number:03d}"),
            position_lps_mm=(-115.0 + shift_mm, -115.0, float(z)),
            **changes,
        )
        for number, z in enumerate(z_mm)
    ]
