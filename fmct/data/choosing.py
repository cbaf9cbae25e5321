"""Which series of a study is taken: the thinnest soft-tissue axial one, by preferences that are written down in order.

A preference is a function and a line of `PREFERENCES`: what a smaller value of means better, and how to say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fmct.data.joining import AXIAL, WHOLE_HEAD_MM
from fmct.data.kernels import is_sharp
from fmct.data.rejection import Reject, RejectCode
from fmct.data.scan import Scan
from fmct.data.series_rules import slice_normal_lps


def off_axis(scan: Scan) -> float:
    """Axial (also tilted) before sagittal and coronal."""
    return float(bool(scan.slices) and abs(slice_normal_lps(scan.slices[0])[2]) <= AXIAL)


def part_of_head(scan: Scan) -> float:
    """A whole head before a part of it, however thin: temporal bones, or a base without its vertex."""
    return float(scan.extent_mm[2] < WHOLE_HEAD_MM)


def with_contrast(scan: Scan) -> float:
    """Without contrast before with."""
    return float(scan.facts.get("contrast", 0))


def not_soft(scan: Scan) -> float:
    """Soft-tissue kernel before an unknown one, that before a sharp one."""
    sharp = is_sharp(str(scan.facts.get("kernel", "")))
    if sharp is None:
        sharp = bool(scan.slices) and scan.slices[0].says_bone
        return 2.0 if sharp else 1.0
    return 2.0 if sharp or scan.slices[0].says_bone else 0.0


def distance_mm(scan: Scan) -> float:
    """Thin slices before thick ones, by the distance between them."""
    return round(float(scan.facts["spacing_z_mm"]), 2)


def lacking_mm(scan: Scan) -> float:
    """More of the head before less."""
    return -round(scan.extent_mm[2])


PREFERENCES: tuple[tuple[Callable[[Scan], float], str], ...] = (
    (off_axis, "it isn't axial"),
    (part_of_head, "it covers less than a head"),
    (with_contrast, "it has contrast"),
    (not_soft, "its kernel is sharper, or unknown"),
    (distance_mm, "its slices lie further apart"),
    (lacking_mm, "it covers less"),
)


def ranked(scans: Sequence[Scan]) -> list[Scan]:
    """Return the scans of a study, the best first; equal ones by scan_id, so that the choice is always the same."""
    return sorted(scans, key=lambda scan: (*(preference(scan) for preference, _ in PREFERENCES), scan.scan_id))


def not_chosen(scan: Scan, chosen: Scan) -> Reject:
    """Return the reject of a scan of which another reconstruction was taken, with the preference that decided."""
    reason = next((text for preference, text in PREFERENCES if preference(scan) != preference(chosen)), "it is alike")
    figures = f"{scan.facts['spacing_z_mm']:g} mm, kernel {scan.facts.get('kernel') or 'unknown'}"
    other = f"{chosen.facts['spacing_z_mm']:g} mm, kernel {chosen.facts.get('kernel') or 'unknown'}"
    detail = f"{reason}: {figures}; chosen was {chosen.scan_id} ({other})"
    return Reject(str(scan.path), RejectCode.NOT_CHOSEN, detail, scan.scan_id)
