"""Headers and scans as SQLite keeps them: geometry as 11 numbers, what slices of a series share as one JSON text."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from fmct.data.dicom import SliceHeader
from fmct.data.scan import Scan

GEOMETRY = struct.Struct("<11d")
GEOMETRY_FIELDS = (("position_lps_mm", 3), ("orientation_lps", 6), ("pixel_spacing_mm", 2))
OWN_FIELDS = {"path", "frame", "pixels", "sop_id", "study_id", "series_id", *(name for name, _ in GEOMETRY_FIELDS)}
COMMON_FIELDS = tuple(name for name in SliceHeader.__slots__ if name not in OWN_FIELDS)


def packed(header: SliceHeader) -> bytes:
    """Return a slice's geometry as bytes; what hasn't as many numbers as it should is kept as missing."""
    numbers: list[float] = []
    for name, count in GEOMETRY_FIELDS:
        values = getattr(header, name)
        numbers += values if len(values) == count else [math.nan] * count
    return GEOMETRY.pack(*numbers)


def unpacked(content: bytes) -> dict[str, Any]:
    """Return a slice's geometry, by the names of the header's fields."""
    numbers = list(GEOMETRY.unpack(content))
    fields: dict[str, Any] = {}
    for name, count in GEOMETRY_FIELDS:
        values, numbers = tuple(numbers[:count]), numbers[count:]
        fields[name] = () if math.isnan(values[0]) else values
    return fields


def common_json(header: SliceHeader) -> str:
    """Return what slices of a series have in common."""
    return json.dumps([getattr(header, name) for name in COMMON_FIELDS])


def common_fields(content: str) -> dict[str, Any]:
    """Return what slices have in common, by the names of the header's fields."""
    fields = dict(zip(COMMON_FIELDS, json.loads(content), strict=True))
    return {**fields, "image_type": tuple(fields["image_type"])}


def scan_json(scan: Scan) -> str:
    """Return what is known of a NIfTI file."""
    return json.dumps([scan.scan_id, scan.facts, scan.extent_mm])


def scan_from_json(content: str, path: Path, patient: str) -> Scan:
    """Return a NIfTI file's scan."""
    scan_id, facts, extent_mm = json.loads(content)
    return Scan(scan_id, path, "nifti", facts, patient, study="", extent_mm=tuple(extent_mm))
