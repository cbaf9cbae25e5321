"""A head scanned in two series, base and vertex: found by geometry, and put together where that makes one stack.

Older protocols scan the posterior fossa with thin slices and the vertex with thick ones, as two series. Each alone is
half a head. They belong together when they are parallel, have the same matrix and pixels, share a frame of reference,
and one begins where the other ends; every slice keeps its own position, so nothing is lost by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fmct.data.dicom import SliceHeader
from fmct.data.series_rules import SAME_ORIENTATION, positions_mm, slice_normal_lps

WHOLE_HEAD_MM = 120.0
"""A stack that covers more is no part of a head."""
LARGEST_OVERLAP_MM = 15.0
LARGEST_SEAM_GAPS = 1.5
"""Where two parts meet, the distance may be this many times the wider gap of the two."""
NEAR_MM = 20.0
AXIAL = 0.7
"""Cosine between the normal and the body's axis above which slices are axial; a gantry tilts by 30 degrees at most."""

Stack = Sequence[SliceHeader]


@dataclass
class Joined:
    """What became of the stacks of a study.

    Attributes:
        stacks: whole ones and joined ones, in order along their normals.
        parts: stacks that are a part of a head and fit no other, each with what stands in the way.
        overlapping: how many slices were left out because both parts show the place.
    """

    stacks: list[list[SliceHeader]] = field(default_factory=list)
    parts: list[tuple[list[SliceHeader], str]] = field(default_factory=list)
    overlapping: int = 0


def join_parts(stacks: Sequence[Stack]) -> Joined:
    """Join the stacks of a study that are parts of one head.

    Args:
        stacks: each in order along its normal, of at least two slices.
    """
    joined = Joined()
    parts = [stack for stack in stacks if is_part(stack)]
    joined.stacks = [list(stack) for stack in stacks if not is_part(stack)]
    alike: dict[tuple[object, ...], list[Stack]] = defaultdict(list)
    for part in parts:
        alike[likeness(part)].append(part)
    for group in alike.values():
        chain(group, joined)
    left = joined.parts
    joined.parts = []
    for stack, _ in left:
        neighbor = next((other for other in parts if other[0] is not stack[0] and adjacent(stack, other)), None)
        if neighbor is None:
            joined.stacks.append(stack)
        else:
            joined.parts.append((stack, obstacle(stack, neighbor)))
    return joined


def is_part(stack: Stack) -> bool:
    """Tell whether a stack could be a part of a head: axial, and shorter than a head."""
    return span_mm(stack) < WHOLE_HEAD_MM and abs(slice_normal_lps(stack[0])[2]) > AXIAL


def span_mm(stack: Stack) -> float:
    """Return how much a stack covers along its normal, between the centers of its outer slices."""
    return float(np.ptp(positions_mm(stack)))


def likeness(stack: Stack) -> tuple[object, ...]:
    """Return what two parts must have in common; orientation is compared coarsely here and closely when joining."""
    first = stack[0]
    pixels = tuple(np.round(first.pixel_spacing_mm, 4))
    tilt = tuple(np.round(first.orientation_lps, 1) + 0.0)
    return (first.rows, first.columns, pixels, tilt, first.frame_of_reference, *protocol(first))


def protocol(header: SliceHeader) -> tuple[str, str]:
    """Return kernel and tube voltage as text, so that two unknown ones are alike."""
    return header.kernel, f"{header.kvp:g}"


def chain(group: Sequence[Stack], joined: Joined) -> None:
    """Join parts that follow each other into one stack; those that don't are left over."""
    ordered = sorted(group, key=lambda stack: float(positions_along(stack, group[0][0])[0]))
    whole: list[SliceHeader] = list(ordered[0])
    pieces = 1
    for following in ordered[1:]:
        kept = continuation(whole, following)
        if kept is None:
            finish(whole, pieces, joined)
            whole, pieces = list(following), 1
        else:
            joined.overlapping += len(following) - len(kept)
            whole += kept
            pieces += 1
    finish(whole, pieces, joined)


def finish(stack: list[SliceHeader], pieces: int, joined: Joined) -> None:
    """Put a stack where it belongs: whole when it was joined, otherwise left over."""
    if pieces > 1:
        joined.stacks.append(stack)
    else:
        joined.parts.append((stack, ""))


def continuation(whole: Stack, following: Stack) -> list[SliceHeader] | None:
    """Return the slices by which a part continues a stack upwards, None where it doesn't."""
    one, other = whole[0], following[0]
    if np.abs(np.subtract(one.orientation_lps, other.orientation_lps)).max() > SAME_ORIENTATION:
        return None
    below, above = positions_along(whole, one), positions_along(following, one)
    gap = max(float(np.median(np.diff(below))), float(np.median(np.diff(above))))
    seam = float(above[0] - below[-1])
    if seam < -LARGEST_OVERLAP_MM or seam > LARGEST_SEAM_GAPS * gap or above[-1] <= below[-1]:
        return None
    least = min(float(np.diff(below).min()), float(np.diff(above).min())) / 2
    return [header for header, place in zip(following, above, strict=True) if place >= below[-1] + least]


def positions_along(stack: Stack, reference: SliceHeader) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the positions (K,) of slices along the normal of another."""
    return np.array([header.position_lps_mm for header in stack]) @ slice_normal_lps(reference)


def heights_mm(stack: Stack) -> tuple[float, float]:
    """Return the lowest and highest coordinate along the body's axis of the middles of the slices."""
    first = stack[0]
    across, down = np.reshape(first.orientation_lps, (2, 3))
    middle = across * first.pixel_spacing_mm[1] * first.columns / 2 + down * first.pixel_spacing_mm[0] * first.rows / 2
    z = [header.position_lps_mm[2] + float(middle[2]) for header in stack]
    return min(z), max(z)


def adjacent(one: Stack, other: Stack) -> bool:
    """Tell whether two stacks cover neighboring, not the same, parts of the body's length."""
    (low, high), (other_low, other_high) = heights_mm(one), heights_mm(other)
    overlap = min(high, other_high) - max(low, other_low)
    return -NEAR_MM <= overlap <= 0.5 * min(high - low, other_high - other_low)


def obstacle(one: Stack, other: Stack) -> str:
    """Say why two neighboring parts can't be joined."""
    first, second = one[0], other[0]
    covered = f"slices cover {span_mm(one):.0f} mm; the rest of the head is in another stack"
    if np.abs(np.subtract(first.orientation_lps, second.orientation_lps)).max() > SAME_ORIENTATION:
        cosine = float(np.clip(slice_normal_lps(first) @ slice_normal_lps(second), -1, 1))
        return f"{covered} at another angle ({np.degrees(np.arccos(cosine)):.1f} degrees between them)"
    if first.frame_of_reference != second.frame_of_reference:
        return f"{covered} with another frame of reference"
    if (first.rows, first.columns) != (second.rows, second.columns):
        return f"{covered} with another matrix ({second.rows} x {second.columns}, not {first.rows} x {first.columns})"
    if np.abs(np.subtract(first.pixel_spacing_mm, second.pixel_spacing_mm)).max() > 1e-4:
        return f"{covered} with another pixel size"
    if protocol(first) != protocol(second):
        return f"{covered} of another kernel or tube voltage"
    return f"{covered}, and slices are missing between them or shown twice"
