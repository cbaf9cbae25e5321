"""Masks of what was painted into a phantom: where a finding, by the field that drew it, fills over half of a voxel.

One too thin to fill half of any is where it fills over half as much as it does anywhere.

They are on the scan's own voxels. Slices of uneven distance have no affine: there the masks are on the even grid that
the head was rendered on, which lies in the same patient coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fmct.data.lesion_masks import SUFFIX
from fmct.data.phantom.acquisition import Scan
from fmct.data.phantom.findings import ANY_BLEED, Finding
from fmct.data.phantom.render import Rendering
from fmct.data.phantom.shapes import Array
from fmct.data.phantom.writer import affine_ras, save_image

FILLED = 0.5


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
    for name, share in by_label(findings, shares).items():
        most = float(share.max())
        filled = FILLED if most > FILLED else FILLED * most  # blood in thin sulci may fill over half of no voxel
        inside = (share > filled).astype(np.uint8).transpose(2, 1, 0)
        save_image(np.ascontiguousarray(inside), affine, folder / f"{name}{SUFFIX}", b"mask of a synthetic lesion")


def by_label(findings: Sequence[Finding], shares: Mapping[str, Array]) -> dict[str, Array]:
    """Return the share of each voxel that what sets a label fills, for every label and every finding without one.

    Args:
        findings: what was painted.
        shares: each finding's share of every voxel, by its name; without those that have no body.
    """
    together: dict[str, Array] = {}
    for finding in findings:
        if finding.name in shares:
            for name in (finding.labels or (finding.name,)) + ((ANY_BLEED,) if finding.bleed else ()):
                share = shares[finding.name]
                together[name] = np.maximum(together[name], share) if name in together else share
    return together


def affine_of(rendering: Rendering) -> np.ndarray:
    """Return the (4, 4) affine of a rendering's voxels from indices (x, y, z) to RAS mm."""
    grid = rendering.grid
    affine = np.diag([grid.step_mm, grid.step_mm, grid.step_mm, 1.0])
    affine[:3, 3] = grid.origin_mm
    return affine
