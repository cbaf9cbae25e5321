"""What makes a series usable, by its headers. A rule is a function and a line in one of the tables at the end.

Rules on slices say of each file alone what it is not; rules on stacks look at all slices of one orientation together;
those on whole stacks and on extents (NIfTI files have one too) wait until the parts of a head have been joined.
Each returns None where all is well, otherwise what it found, in figures and without anything that names the patient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from fmct.data.dicom import SliceHeader
from fmct.data.gaps import holes_in
from fmct.data.geometry import FEWEST_SLICES, Vectors
from fmct.data.rejection import RejectCode

Extent = tuple[float, float, float]
"""Millimeters across the columns, down the rows and along the normal, half a pixel or gap beyond the centers."""

SAME_POSITION_MM = 0.01
FARTHEST_MM = 1e5
SMALLEST_PIXEL_MM, LARGEST_PIXEL_MM = 0.01, 50.0
"""Beyond these it's a damaged header, not a scanner."""
LEAST_COVERAGE_MM = 80.0
LEAST_FIELD_MM = 140.0
SAME_ORIENTATION = 1e-3
SECONDARY_CAPTURE_UID = "1.2.840.10008.5.1.4.1.1.7"


def not_ct(header: SliceHeader) -> str | None:
    """Refuse other modalities, and documents without pixels."""
    if header.modality != "CT":
        return f"Modality {header.modality or '(empty)'}"
    return None if header.rows and header.columns else "no pixels"


def localizer(header: SliceHeader) -> str | None:
    """Refuse scout views."""
    return "ImageType LOCALIZER" if {"LOCALIZER", "SCOUT"} & set(header.image_type) else None


def secondary(header: SliceHeader) -> str | None:
    """Refuse screens, reports, color pictures and whatever else was made from images."""
    if "SECONDARY" in header.image_type:
        return f"ImageType {' '.join(header.image_type[:3])}"
    if header.samples > 1 or header.photometric not in {"MONOCHROME2", "MONOCHROME1", ""}:
        return f"{header.samples} samples per pixel, {header.photometric}"
    return "secondary capture" if header.sop_class.startswith(SECONDARY_CAPTURE_UID) else None


def no_geometry(stack: Sequence[SliceHeader]) -> str | None:
    """Refuse a series of which any slice lacks its place: to leave that slice out would make a gap."""
    lost = sum(not has_geometry(header) for header in stack)
    return f"{lost} of {len(stack)} slices without valid position, orientation and pixel spacing" if lost else None


def has_geometry(header: SliceHeader) -> bool:
    """Tell whether position, orientation (two orthogonal unit vectors) and pixel spacing are there and sound."""
    if (len(header.position_lps_mm), len(header.orientation_lps), len(header.pixel_spacing_mm)) != (3, 6, 2):
        return False
    across, down = np.reshape(header.orientation_lps, (2, 3))
    lengths_off = max(abs(np.linalg.norm(across) - 1), abs(np.linalg.norm(down) - 1))
    in_reach = max(map(abs, header.position_lps_mm)) < FARTHEST_MM
    sizes = min(header.pixel_spacing_mm) >= SMALLEST_PIXEL_MM and max(header.pixel_spacing_mm) <= LARGEST_PIXEL_MM
    return bool(lengths_off < 0.01 and abs(across @ down) < 0.01 and in_reach and sizes)


def mixed_size(stack: Sequence[SliceHeader]) -> str | None:
    """Refuse slices of several sizes."""
    sizes = Counter((header.rows, header.columns, *np.round(header.pixel_spacing_mm, 4)) for header in stack)
    if len(sizes) == 1:
        return None
    found = (f"{n} of {r} x {c} at {y:g} x {x:g} mm" for (r, c, y, x), n in sizes.most_common(3))
    return "; ".join(found)


def one_position(stack: Sequence[SliceHeader]) -> str | None:
    """Refuse many images of one place."""
    same = len(stack) > 1 and np.ptp(positions_mm(stack)) < SAME_POSITION_MM
    return f"{len(stack)} images at one position" if same else None


def not_two_slices(stack: Sequence[SliceHeader]) -> str | None:
    """Refuse a single slice: no volume."""
    return "a single slice" if len(stack) < 2 else None


def duplicate_position(stack: Sequence[SliceHeader]) -> str | None:
    """Refuse different images at one place: two phases or kernels in one series. Copies have been taken out before."""
    twice = len(stack) - len(one_for_each_position(stack))
    return f"{twice} of {len(stack)} images share their position with another, different one" if twice else None


def one_for_each_position(stack: Sequence[SliceHeader]) -> list[SliceHeader]:
    """Return the first slice at each position; for stacks that are in order along their normal."""
    positions = positions_mm(stack)
    apart = np.diff(positions, prepend=-np.inf) >= SAME_POSITION_MM
    return [header for header, first in zip(stack, apart, strict=True) if first]


def too_few_slices(stack: Sequence[SliceHeader]) -> str | None:
    """Refuse what can't show a head."""
    return f"slices: {len(stack)}, at least {FEWEST_SLICES} needed" if len(stack) < FEWEST_SLICES else None


def gap(stack: Sequence[SliceHeader]) -> str | None:
    """Refuse a stack with holes; tell where they are."""
    holes = holes_in(positions_mm(stack))
    if not holes:
        return None
    first = holes[0]
    z_mm = (stack[first.after].position_lps_mm[2] + stack[first.after + 1].position_lps_mm[2]) / 2
    more = f", and {len(holes) - 1} more such gaps" if len(holes) > 1 else ""
    return (
        f"slice missing at z = {z_mm:.1f} mm: a gap of {first.gap_mm:.1f} mm between gaps of {first.usual_mm:.1f} mm "
        f"({first.missing} missing){more}"
    )


def short_coverage(extent_mm: Extent) -> str | None:
    """Refuse stacks too short to show a head's findings: a brain is 130 mm high."""
    along = extent_mm[2]
    return f"slices cover {along:.0f} mm, at least {LEAST_COVERAGE_MM:g} needed" if along < LEAST_COVERAGE_MM else None


def small_field(extent_mm: Extent) -> str | None:
    """Refuse fields of view that no head fits in, such as those of temporal bones and orbits."""
    across, down = extent_mm[:2]
    small = min(across, down) < LEAST_FIELD_MM
    return f"field of view {across:.0f} x {down:.0f} mm, at least {LEAST_FIELD_MM:g} needed" if small else None


def slice_normal_lps(header: SliceHeader) -> Vectors:
    """Return the unit normal of a slice, in LPS."""
    across, down = np.reshape(header.orientation_lps, (2, 3))
    normal = np.cross(across, down)
    return np.asarray(normal / np.linalg.norm(normal))


def positions_mm(stack: Sequence[SliceHeader]) -> Vectors:
    """Return the position (K,) of each slice along the normal of the first."""
    return np.array([header.position_lps_mm for header in stack]) @ slice_normal_lps(stack[0])


SLICE_RULES: tuple[tuple[RejectCode, Callable[[SliceHeader], str | None]], ...] = (
    (RejectCode.NOT_CT, not_ct),
    (RejectCode.LOCALIZER, localizer),
    (RejectCode.SECONDARY, secondary),
)
STACK_RULES: tuple[tuple[RejectCode, Callable[[Sequence[SliceHeader]], str | None]], ...] = (
    (RejectCode.MIXED_SIZE, mixed_size),
    (RejectCode.TOO_FEW_SLICES, not_two_slices),
    (RejectCode.ONE_POSITION, one_position),
    (RejectCode.DUPLICATE_POSITION, duplicate_position),
)
WHOLE_STACK_RULES: tuple[tuple[RejectCode, Callable[[Sequence[SliceHeader]], str | None]], ...] = (
    (RejectCode.TOO_FEW_SLICES, too_few_slices),
    (RejectCode.GAP, gap),
)
EXTENT_RULES: tuple[tuple[RejectCode, Callable[[Extent], str | None]], ...] = (
    (RejectCode.SHORT_COVERAGE, short_coverage),
    (RejectCode.SMALL_FIELD, small_field),
)
