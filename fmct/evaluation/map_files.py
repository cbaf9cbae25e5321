"""Maps as files: NIfTI for viewers, and a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmct.console.files import file_name, write_bytes_atomically
from fmct.data.nifti_writing import write_nifti
from fmct.data.own_grid import VoxelGrid
from fmct.data.scan_inputs import FoundScan
from fmct.evaluation.explanations import ExplanationMap
from fmct.evaluation.map_geometry import onto
from fmct.evaluation.overlay import overlay


def write_maps(folder: Path, scan: FoundScan, maps: list[ExplanationMap], *, own_grid: bool) -> list[Path]:
    """Write a scan's maps: NAME.nii.gz with the true affine, NAME.png over the preprocessed volume.

    Args:
        folder: made for it.
        scan: whose maps.
        maps: of one scan.
        own_grid: on the scan's own voxels, where they are known; otherwise on those of the preprocessed volume. Heads
            and colors, which are several maps in one file, are always on the latter.

    Returns:
        The NIfTI files.
    """
    volume = scan.volume
    prepared = VoxelGrid.of_volume(volume)
    paths = []
    for one in maps:
        shown = onto(one.values, one.affine, prepared)
        grid, values = prepared, shown
        if own_grid and scan.own_grid is not None and shown.ndim == 3:
            grid = scan.own_grid
            values = onto(one.values, one.affine, grid, within=prepared)
        paths.append(folder / f"{file_name(one.name)}.nii.gz")
        write_nifti(values, grid.affine_ras, paths[-1])
        write_bytes_atomically(folder / f"{file_name(one.name)}.png", overlay(volume, pictures(one, shown)))
    return paths


def pictures(one: ExplanationMap, values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return what a map's picture shows, by title: each head for itself."""
    if one.kind == "heads":
        return {f"head {number + 1}": head for number, head in enumerate(values)}
    return {one.name: values}
