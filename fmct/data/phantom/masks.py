"""Masks of what was painted into a phantom: where a finding, by the field that drew it, fills over half of a voxel.

One too thin for that, as blood in sulci is, has the voxels that it fills most: as many as its volume makes.

They are on the scan's own voxels. Slices of uneven distance have no affine: there the masks are on the even grid that
the head was rendered on, which lies in the same patient coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmct.data.lesion_masks import SUFFIX
from fmct.data.phantom.acquisition import Scan
from fmct.data.phantom.findings import ANY_BLEED, Finding
from fmct.data.phantom.render import Rendering
from fmct.data.phantom.shapes import Array
from fmct.data.phantom.writer import affine_ras, save_image

FILLED = 0.5
THIN = 0.75  # a body is thin if the voxels that it fills over half of are less than this share of its volume
Mask = NDArray[np.bool_]


def write_masks(scan: Scan, findings: Sequence[Finding], folder: Path) -> None:
    """Write a NAME.nii.gz for each label of findings that have a body, ICH.nii.gz for all bleeds together.

    A finding without labels has a mask of its own name.

    Args:
        scan: acquired with its lesions.
        findings: what was painted.
        folder: made when there is anything to write.
    """
    if scan.protocol.even:
        affine, shares = affine_ras(scan), scan.lesions
    else:
        assert scan.rendering is not None
        affine, shares = affine_of(scan.rendering), scan.rendering.lesions
    masks = {name: marked(share) for name, share in shares.items()}
    for name, mask in by_label(findings, masks).items():
        inside = np.ascontiguousarray(mask.astype(np.uint8).transpose(2, 1, 0))
        save_image(inside, affine, folder / f"{name}{SUFFIX}", b"mask of a synthetic lesion")


def marked(share: Array) -> Mask:
    """Mark the voxels that belong to a body by its share of each voxel."""
    inside, volume = share > FILLED, float(share.sum(dtype=np.float64))
    if inside.sum() >= THIN * volume:
        return inside
    most = round(volume) or 1
    mask: Mask = share >= np.partition(share, share.size - most, axis=None)[share.size - most]
    return mask


def by_label(findings: Sequence[Finding], masks: Mapping[str, Mask]) -> dict[str, Mask]:
    """Return the mask of whatever sets a label, for every label and every finding without one.

    Args:
        findings: what was painted.
        masks: each finding's, by its name; without those that have no body.
    """
    together: dict[str, Mask] = {}
    for finding in findings:
        if finding.name in masks:
            for name in (finding.labels or (finding.name,)) + ((ANY_BLEED,) if finding.bleed else ()):
                together[name] = masks[finding.name] | together.get(name, False)
    return together


def affine_of(rendering: Rendering) -> np.ndarray:
    """Return the (4, 4) affine of a rendering's voxels from indices (x, y, z) to RAS mm."""
    grid = rendering.grid
    affine = np.diag([grid.step_mm, grid.step_mm, grid.step_mm, 1.0])
    affine[:3, 3] = grid.origin_mm
    return affine
