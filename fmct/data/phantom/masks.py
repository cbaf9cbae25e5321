"""Masks of what was painted into a phantom: where a finding, by the field that drew it, fills over half of a voxel.

They are on the scan's own voxels. Slices of uneven distance have no affine: there the masks are on the even grid that
the head was rendered on, which lies in the same patient coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Write NAME.nii.gz for every finding that has a body, and ICH.nii.gz for all bleeds together.

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
    bleeds = [shares[finding.name] for finding in findings if finding.bleed and finding.name in shares]
    together: dict[str, Array] = {ANY_BLEED: np.maximum.reduce(bleeds)} if bleeds else {}
    for name, share in {**shares, **together}.items():
        inside = (share > FILLED).astype(np.uint8).transpose(2, 1, 0)
        save_image(np.ascontiguousarray(inside), affine, folder / f"{name}{SUFFIX}", b"mask of a synthetic lesion")


def affine_of(rendering: Rendering) -> np.ndarray:
    """Return the (4, 4) affine of a rendering's voxels from indices (x, y, z) to RAS mm."""
    grid = rendering.grid
    affine = np.diag([grid.step_mm, grid.step_mm, grid.step_mm, 1.0])
    affine[:3, 3] = grid.origin_mm
    return affine
